"""Any audio file → float32 blocks, in bounded memory however long the file is.

FFmpeg decodes (`ffmpeg`); what it does not recognise is given to libsndfile (`libsndfile`). Channels are mixed in
`fold_down`, rates changed once in `resample`. Time stamps are not used: a recording is its samples, one after the
other.

An AudioError is a verdict on what the file holds, and the same next time. Where the machine fails instead (the file is
gone, the disk or the memory gives out), that OSError or MemoryError comes through as it is; PyAV's own kinds of both
are among them.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_prep import ffmpeg, libsndfile
from data_prep.audio_file import AudioError, AudioInfo, Source, clock, reason
from data_prep.fold_down import FoldDown, fold_down
from data_prep.resample import rechunk, resample

__all__ = ["AudioError", "AudioInfo", "Source", "clock", "probe", "reason", "stream"]

_BLOCK_SAMPLES = 65_536


def probe(path: Path) -> AudioInfo:
    """Read a file's header.

    Raises:
        AudioError: it is no audio file, or there is no audio in it.
        OSError: it cannot be read.
    """
    try:
        return ffmpeg.probe(path)
    except AudioError:
        second = libsndfile.probe(path)
        if second is None:
            raise
        return second


def stream(
    path: Path,
    *,
    sample_rate_hz: int | None = None,
    channels: int | None = None,
    fold: FoldDown | None = None,
    block_sec: float = 10.0,
    source: Source | None = None,
) -> Iterator[Float[np.ndarray, "C _"]]:
    """Decode a file into blocks [C, N] of `block_sec` seconds, the last one shorter; full scale is ±1.

    None keeps the file's own rate, or its own channels. `fold` is how the file is brought to one or two channels, as
    `measure` found to be best for it; without it, a way that cannot clip. Give a `source` to learn about the file on
    the way.

    Raises:
        AudioError: nothing decodes, the file is cut off or corrupt, or it holds samples that are not numbers. It may
            come after blocks were handed out: what is made of them then has to be thrown away.
        OSError: it cannot be read, or not to its end.
    """
    source = source if source is not None else Source()
    native = _gathered(_decoded(path, source), channels, fold, source)
    first = next(native)
    to_hz = sample_rate_hz or source.sample_rate_hz
    blocks = resample(_chained(first, native), source.sample_rate_hz, to_hz)
    yield from rechunk(blocks, max(1, round(block_sec * to_hz)))


def _decoded(path: Path, source: Source) -> Iterator[tuple[np.ndarray, tuple[str, ...]]]:
    """Decoded audio [C, N] and its channels' names, from whichever library reads the file."""
    frames = ffmpeg.frames(path, source)
    try:
        first = next(frames)
    except AudioError:
        if libsndfile.probe(path) is None:
            raise
        for block in libsndfile.blocks(path, source):
            yield block, source.names
        return
    yield first
    yield from frames


def _chained(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _gathered(
    frames: Iterator[tuple[np.ndarray, tuple[str, ...]]], channels: int | None, fold: FoldDown | None, source: Source
) -> Iterator[Float[np.ndarray, "C _"]]:
    """Blocks at the file's own rate. Small packets are gathered first: the steps after this cost per block."""
    held: list[np.ndarray] = []
    count = 0
    for frame, names in frames:
        wanted = channels if channels is not None or len(names) == source.channels else min(source.channels, 2)
        audio = fold_down(frame, names, wanted, fold)
        held.append(audio)
        count += audio.shape[1]
        if count >= _BLOCK_SAMPLES:
            yield _checked(np.concatenate(held, axis=1), source)
            held, count = [], 0
    if held:
        yield _checked(np.concatenate(held, axis=1), source)
    elif not source.samples:
        raise AudioError("nothing in it decodes")


def _checked(audio: Float[np.ndarray, "C N"], source: Source) -> Float[np.ndarray, "C N"]:
    if not np.isfinite(audio).all():
        raise AudioError(f"samples that are not numbers before {clock(source.duration_sec)}")
    return audio
