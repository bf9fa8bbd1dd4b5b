"""Clips → codec tokens, in batches of equally long clips, each clip's tokens kept as soon as they are there."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from data_prep.base_files import BaseFiles
from data_prep.cache import Cache, work_key
from data_prep.clips import Clip, changed, read_clips
from data_prep.codec.port import Codec
from data_prep.codec.registry import load_base_codec
from data_prep.decode import AudioError
from data_prep.progress import stage

TOKENS_VERSION = 1
_WAITING_BATCHES = 4


def encode_clips(
    clips: Sequence[Clip],
    files: BaseFiles,
    fingerprint: str,
    cache: Cache,
    *,
    device: torch.device,
    batch_size: int,
) -> dict[str, Int[np.ndarray, "K _"]]:
    """Tokens of every clip by its id. The codec is loaded only when some are not in the cache.

    Raises:
        UserError: a song changed since it was measured.
    """
    keys = {clip.id: _key(clip, fingerprint, files) for clip in clips}
    codes: dict[str, Int[np.ndarray, "K _"]] = {}
    with stage("codec tokens", len(clips), unit="clips") as progress:
        for clip in clips:
            known = cache.read_tensors("tokens", keys[clip.id])
            if known is not None:
                codes[clip.id] = known["codes"]
                progress.advance(reused=True)
        todo = [clip for clip in clips if clip.id not in codes]
        if not todo:
            return codes
        codec = load_base_codec(files, device)
        size = batch_size if device.type == "cuda" else 1  # a CPU gains nothing from batches but needs their memory
        for batch in _batches(_audio(todo, codec), size):
            for (clip, _), found in zip(batch, _encode(codec, [audio for _, audio in batch]), strict=True):
                cache.write_tensors("tokens", keys[clip.id], {"codes": found})
                codes[clip.id] = found
                progress.advance()
    return codes


def _key(clip: Clip, fingerprint: str, files: BaseFiles) -> str:
    return work_key(TOKENS_VERSION, codec=fingerprint, channels=files.spec.channels, **clip.place)


def _audio(clips: Sequence[Clip], codec: Codec) -> Iterator[tuple[Clip, Tensor]]:
    """Each clip with its audio [C, N]; a track is decoded once."""
    for _, of_version in groupby(clips, key=lambda clip: clip.version.key):
        group = sorted(of_version, key=lambda clip: clip.segment.start_sec)
        version = group[0].version
        try:
            audio = read_clips(
                version.path,
                [clip.segment for clip in group],
                sample_rate_hz=codec.sample_rate_hz,
                channels=codec.channels,
                fold=version.scan.fold,
            )
            for clip, samples in zip(group, audio, strict=True):
                yield clip, torch.from_numpy(samples)
        except (AudioError, OSError) as error:
            raise changed(version.track.song.relative, error) from error


def _batches(clips: Iterator[tuple[Clip, Tensor]], size: int) -> Iterator[list[tuple[Clip, Tensor]]]:
    """Groups of clips of one length. At most a few batches' worth of clips wait for others of their length."""
    waiting: dict[int, list[tuple[Clip, Tensor]]] = {}
    for item in clips:
        group = waiting.setdefault(item[1].shape[1], [])
        group.append(item)
        if len(group) == size:
            yield waiting.pop(item[1].shape[1])
        elif sum(map(len, waiting.values())) >= _WAITING_BATCHES * size:
            yield waiting.pop(max(waiting, key=lambda length: len(waiting[length])))
    yield from waiting.values()


def _encode(codec: Codec, audio: list[Tensor]) -> list[Int[np.ndarray, "K _"]]:
    """Encode a batch; where the GPU's memory does not hold it, in halves."""
    try:
        return codec.encode(audio)
    except torch.OutOfMemoryError:
        if len(audio) == 1:
            raise
    half = len(audio) // 2
    return _encode(codec, audio[:half]) + _encode(codec, audio[half:])
