"""Stems of a whole track with Demucs, in bounded memory however long it is.

The track is decoded twice: once for the mean and deviation that Demucs normalises by, then in windows that are
separated, added up with overlap (`overlap_add`) and written at once, so that at no time more than a few windows are
in memory. One separation serves every version asked for. Stems are kept in stereo, at the model's own rate, as 32-bit
float WAV: stems may exceed full scale where the mix does not, which integers would clip. `instrumental` is the mix
minus the vocals: together with the vocals it is the recording, nothing lost, where the sum of the other stems would
lack what the model gave to none.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from configs.errors import UserError
from data_prep.decode import AudioError, stream
from data_prep.fold_down import FoldDown
from data_prep.overlap_add import WindowPlan, overlap_add
from data_prep.resample import rechunk
from data_prep.separator import Separator, load_separator
from data_prep.stems import INSTRUMENTAL, VOCALS, Selection, check_selections, parse_selection
from data_prep.write_audio import FloatWavWriter

__all__ = ["Selection", "Separator", "check_selections", "load_separator", "parse_selection", "separate"]

Blocks = Iterator[Float[np.ndarray, "C _"]]
_BLOCK_SEC = 5.0
_CANCELLED = 0.01  # of the power of the channels, in their mean
_SHIFT_SEC = 0.5
_BATCH_ON_CUDA = 4
_CUDA_BYTES_FOR_BATCH = 8 * 2**30


@dataclass(frozen=True)
class _Loudness:
    """What Demucs normalises a track by: of the mean of its channels, over its whole length."""

    samples: int
    mean: float
    std: float


def separate(
    path: Path,
    selections: Sequence[Selection],
    separator: Separator,
    folder: Path,
    *,
    fold: FoldDown | None = None,
    overlap: float = 0.25,
    shifts: int = 0,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, Path]:
    """Write the wanted versions of a track as `folder/<name>.wav`, and say where each one is; the mix is the track
    itself.

    Args:
        path: the track.
        selections: what is wanted; see `stems`.
        separator: a loaded model.
        folder: where the files go; each is renamed into place when all of them are whole.
        fold: how the track is brought to stereo, as measured.
        overlap: share by which windows overlap.
        shifts: with n > 0, the mean of n separations of the track shifted by up to half a second.
        seed: decides these shifts.
        on_progress: told the share that is done, after each window.

    Raises:
        AudioError: the track does not decode.
        UserError: the model lacks a stem, or the GPU lacks memory.
    """
    check_selections(selections, separator.sources)
    needs = frozenset().union(*(selection.needs for selection in selections))
    written = [selection for selection in selections if selection.needs]
    places = {s.name: folder / f"{s.name}.wav" if s.needs else path for s in selections}
    if not needs:
        return places
    track = partial(_track, path, separator, fold)
    loudness = _loudness(track())
    pieces = _stems(track, separator, needs, loudness, overlap, _shifts(separator, shifts, seed))
    done = 0
    with ExitStack() as stack:
        writers = {s: stack.enter_context(_writer(places[s.name], separator, loudness.samples)) for s in written}
        for mix, stems in zip(track(), pieces, strict=True):
            for selection, writer in writers.items():
                writer.write(_version(selection, mix, stems, separator.sources))
            done += mix.shape[1]
            if on_progress is not None:
                on_progress(done / loudness.samples)
    return places


def _track(path: Path, separator: Separator, fold: FoldDown | None) -> Blocks:
    rate_hz, channels = separator.sample_rate_hz, separator.channels
    return stream(path, sample_rate_hz=rate_hz, channels=channels, fold=fold, block_sec=_BLOCK_SEC)


def _writer(path: Path, separator: Separator, samples: int) -> FloatWavWriter:
    return FloatWavWriter(path, separator.sample_rate_hz, separator.channels, samples)


def _loudness(blocks: Blocks) -> _Loudness:
    """Sums in float64 over the stream; the deviation is the unbiased one, as torch's default.

    Where the channels cancel out in their mean, its deviation would make the model's input enormous: the channels' own
    is taken then.

    Raises:
        AudioError: at the model's rate, nothing is left of the track.
    """
    count, total, squares, apart = 0, 0.0, 0.0, 0.0
    for block in blocks:
        mono = block.mean(axis=0, dtype=np.float64)
        count += len(mono)
        total += float(mono.sum())
        squares += float(np.square(mono).sum())
        apart += float(np.square(block, dtype=np.float64).mean(axis=0).sum())
    if not count:
        raise AudioError("too short to separate")
    mean = total / count
    variance = max(0.0, squares - count * mean * mean) / max(1, count - 1)
    if squares < _CANCELLED * apart:
        variance = apart / max(1, count - 1)
    return _Loudness(count, mean, variance**0.5 + 1e-8)


def _shifts(separator: Separator, shifts: int, seed: int) -> list[int]:
    """How many zeros go before the track in each separation, up to half a second; one separation of none by default."""
    draw, most = random.Random(seed), int(_SHIFT_SEC * separator.sample_rate_hz)
    return [most - draw.randint(0, most) for _ in range(shifts)] or [0]


def _stems(
    track: Callable[[], Blocks],
    separator: Separator,
    needs: frozenset[str],
    loudness: _Loudness,
    overlap: float,
    leads: list[int],
) -> Iterator[Float[np.ndarray, "Q C _"]]:
    """Separated blocks in step with `_track`: the mean over all shifts, at the track's own level."""
    block = max(1, round(_BLOCK_SEC * separator.sample_rate_hz))
    runs = [_one_run(track(), separator, needs, loudness, overlap, lead, block) for lead in leads]
    for pieces in zip(*runs, strict=True):
        flat = np.stack(pieces).mean(axis=0)  # [Q * C, n]
        yield (flat * loudness.std + loudness.mean).reshape(len(separator.sources), separator.channels, -1)


def _one_run(
    track: Blocks,
    separator: Separator,
    needs: frozenset[str],
    loudness: _Loudness,
    overlap: float,
    lead: int,
    block: int,
) -> Iterator[Float[np.ndarray, "R _"]]:
    """One separation of the normalised track behind `lead` zeros, which are cut from the result."""
    plan = separator.plan(loudness.samples + lead, overlap)
    signal = _led(((b - loudness.mean) / loudness.std for b in track), separator.channels, lead)
    outputs = overlap_add(signal, plan, partial(_guarded, separator, needs), _batch(separator, plan))
    return rechunk(_without_lead((piece.flatten(0, 1).numpy() for piece in outputs), lead), block)


def _led(blocks: Iterator[np.ndarray], channels: int, lead: int) -> Iterator[Float[np.ndarray, "C _"]]:
    if lead:
        yield np.zeros((channels, lead), np.float32)
    for block in blocks:
        yield block.astype(np.float32)


def _without_lead(blocks: Iterator[np.ndarray], lead: int) -> Iterator[Float[np.ndarray, "R _"]]:
    for block in blocks:
        dropped = min(lead, block.shape[1])
        lead -= dropped
        if dropped < block.shape[1]:
            yield block[:, dropped:]


def _version(
    selection: Selection, mix: Float[np.ndarray, "C n"], stems: Float[np.ndarray, "Q C n"], sources: Sequence[str]
) -> Float[np.ndarray, "C n"]:
    if selection.parts == (INSTRUMENTAL,):
        return mix - stems[sources.index(VOCALS)]
    return stems[[sources.index(part) for part in selection.parts]].sum(axis=0)


def _batch(separator: Separator, plan: WindowPlan) -> int:
    """Windows at once: several where a GPU has the memory, never more than there are."""
    if separator.device.type != "cuda":
        return 1
    free_bytes, _ = torch.cuda.mem_get_info(separator.device)
    return min(plan.count, _BATCH_ON_CUDA) if free_bytes > _CUDA_BYTES_FOR_BATCH else 1


def _guarded(separator: Separator, needs: frozenset[str], windows: torch.Tensor) -> torch.Tensor:
    try:
        return separator.run(windows, needs)
    except torch.cuda.OutOfMemoryError as error:
        fix = "close what else uses the GPU, or separate on the CPU: --device cpu"
        raise UserError("the GPU has too little free memory to separate stems", where="stems", fix=fix) from error
