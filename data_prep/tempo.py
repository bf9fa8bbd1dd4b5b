"""One tempo for a track, and where in it that tempo does not hold.

A listener may tap a piece at half or double the speed that its players count, so the strongest period alone says
little. Here the octave is measured: the autocorrelations of the onsets in four regions (bass drum, snare, cymbals,
everything) at a quarter to four times a candidate's beat tell whether kick and snare alternate at it, what the cymbals
divide it into, and whether longer accents are bars of it. A conditional logit (McFadden 1974) over the candidates
weighs these; `tempo_weights` holds its numbers and says how they were fitted. Its probability for the best candidate
is the confidence; a tempo is stated from 0.9 on, where half, double, and the ternary relatives are all implausible.

What it does not know: metre, and tempi outside 40 to 240 beats per minute. Music without a pulse has no tempo.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from jaxtyping import Float

from data_prep.onsets import FRAMES_PER_SEC, REGIONS
from data_prep.tempo_weights import WEIGHTS

STATED_FROM = 0.9
STEP_SEC = 8.0
_WINDOW_SEC = 24.0
_LONGEST_LAG = round(6.5 * FRAMES_PER_SEC)
_LOWEST_BPM, _HIGHEST_BPM = 38.0, 245.0
_RELATIVES = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 1.0, 3 / 2, 2.0, 3.0, 4.0)
_PULSE = 0.12
"""The least that the autocorrelation at beats rises above that between them, in music with a pulse."""
_SAME = 0.025
_STEADY_SHARE = 0.6
_DOUBT_SHARE = 0.2
_REACH = 0.012  # of a lag: how far off a period may be and still be taken for it
_MARGIN = 8  # frames, more than the reach at the longest lag


@dataclass(frozen=True)
class Tempo:
    """The tempo of a track. `bpm` is None where it cannot be told, or changes."""

    bpm: float | None = None
    confidence: float = 0.0
    local: tuple[float | None, ...] = ()
    """The tempo around each multiple of `STEP_SEC`, None where it cannot be told there."""

    def between(self, start_sec: float | int, end_sec: float | int) -> float | None:
        """The tempo of a stretch: that of the track unless the stretch has evidence against it."""
        first = round(start_sec / STEP_SEC)
        inside = self.local[first : max(first + 1, round(end_sec / STEP_SEC))]
        known = [bpm for bpm in inside if bpm is not None]
        if 2 * len(known) < len(inside) or not known:
            return None
        middle = float(np.median(known))
        return round(middle, 1) if all(_alike(bpm, middle) for bpm in known) else None

    def to_json(self) -> dict[str, Any]:
        """Plain values; `Tempo.from_json` reads them back."""
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Tempo":
        """The inverse of `to_json`."""
        return Tempo(value["bpm"], value["confidence"], tuple(value["local"]))


def find_tempo(rises: Float[np.ndarray, "R T"]) -> Tempo:
    """The tempo of a track from its onsets (see `onsets`)."""
    windows = [_correlations(part) for part in _windows(rises)]
    if not windows:
        return Tempo()
    bpm, confidence = estimate(np.mean(windows, axis=0))
    alone = [_stated(window) for window in windows]
    if bpm is not None and confidence >= STATED_FROM:
        local = [_local(window, own, bpm) for window, own in zip(windows, alone, strict=True)]
        holds = sum(found == bpm for found in local)
        if holds >= _STEADY_SHARE * len(local) and not _octave_in_doubt(alone, bpm):
            return Tempo(round(bpm, 1), round(confidence, 3), tuple(_rounded(found) for found in local))
    return Tempo(None, round(confidence, 3), _changing(alone))


def _octave_in_doubt(alone: Sequence[float | None], bpm: float) -> bool:
    """Whether stretches that are sure of themselves contradict the whole track by half, double or another relative."""
    said = [own for own in alone if own is not None]
    relatives = [own for own in said if not _alike(own, bpm) and any(_alike(own, bpm * r) for r in _RELATIVES)]
    return len(relatives) > _DOUBT_SHARE * len(said)


def _changing(alone: Sequence[float | None]) -> tuple[float | None, ...]:
    """The tempi of the stretches of a track that has no one tempo: only runs of three that agree count, and only where
    the track really changes from one to another that is none of its relatives.
    """
    kept = [own if own is not None and _in_run(alone, at) else None for at, own in enumerate(alone)]
    found = [own for own in kept if own is not None]
    changes = any(not any(_alike(a, b * r) for r in _RELATIVES) for a, b in pairwise(found))
    mixed = any(not _alike(a, b) and any(_alike(a, b * r) for r in _RELATIVES) for a, b in combinations(found, 2))
    return tuple(_rounded(own) for own in kept) if changes and not mixed else (None,) * len(kept)


def _in_run(alone: Sequence[float | None], at: int) -> bool:
    own = alone[at]
    for first in (at - 2, at - 1, at):
        run = alone[max(0, first) : first + 3]
        if len(run) == 3 and all(other is not None and own is not None and _alike(other, own) for other in run):
            return True
    return False


def estimate(correlations: Float[np.ndarray, "A L"]) -> tuple[float | None, float]:
    """The most plausible tempo and its probability among its relatives; None without a pulse."""
    beats, pulse = candidates(correlations)
    if not beats or pulse < _PULSE:
        return None, 0.0
    scores = np.array([evidence(correlations, beat) @ np.asarray(WEIGHTS) for beat in beats])
    share = np.exp(scores - scores.max())
    best = int(np.argmax(share))
    return 60 * FRAMES_PER_SEC / beats[best], float(share[best] / share.sum())


def candidates(correlations: Float[np.ndarray, "A L"]) -> tuple[list[float], float]:
    """Periods in onset frames that may be the beat, relatives of the strongest, and how strong its pulse is."""
    together = correlations[-1] + 0.5 * correlations[:-1].mean(axis=0)
    lags = np.arange(int(60 / 240 * FRAMES_PER_SEC), int(60 / _LOWEST_BPM * FRAMES_PER_SEC) + 1)
    combs = _combs(together, lags)
    base = float(lags[np.argmax(combs)])
    pulse = float(combs.max() - combs.mean())
    found = [base * relative for relative in _RELATIVES]
    low, high = 60 * FRAMES_PER_SEC / _HIGHEST_BPM, 60 * FRAMES_PER_SEC / _LOWEST_BPM
    return [_refined(together, beat) for beat in found if low <= beat <= high], pulse


def evidence(correlations: Float[np.ndarray, "A L"], beat: float) -> Float[np.ndarray, " W"]:
    """What the onsets say of a beat of so many frames: its speed, and the autocorrelations around it."""
    speed = np.log2(60 * FRAMES_PER_SEC / beat / 110)
    facts = [speed, speed**2, speed**3, speed**4]
    for row in correlations:
        heights = _heights(row, beat * np.array(_RELATIVES)).tolist()
        facts += heights
        facts += [heights[6] - heights[4], heights[4] - heights[2], heights[2] - heights[0], heights[8] - heights[6]]
    return np.array(facts)


def correlations_of(rises: Float[np.ndarray, "R T"]) -> Float[np.ndarray, "A L"]:
    """What `estimate` judges a track by: the autocorrelations of its onsets, the mean over its stretches."""
    return np.mean([_correlations(part) for part in _windows(rises)], axis=0)


def _windows(rises: Float[np.ndarray, "R T"]) -> list[Float[np.ndarray, "R _"]]:
    """Stretches of 24 s around each multiple of 8 s; those at the ends, and of short tracks, are shorter."""
    half, step = round(_WINDOW_SEC / 2 * FRAMES_PER_SEC), STEP_SEC * FRAMES_PER_SEC
    centres = [round(index * step) for index in range(int(rises.shape[1] / step) + 1)]
    parts = [rises[:, max(0, centre - half) : centre + half] for centre in centres]
    return [part for part in parts if part.shape[1] >= _LONGEST_LAG + round(FRAMES_PER_SEC)]


def _correlations(rises: Float[np.ndarray, "R T"]) -> Float[np.ndarray, "A L"]:
    """The normalised autocorrelation of each region's onsets, and, last, of all together."""
    from scipy.fft import irfft, rfft
    from scipy.ndimage import uniform_filter1d

    level = rises.std(axis=1, keepdims=True) + 1e-6
    rows = np.concatenate([rises, (rises / level).sum(axis=0, keepdims=True)])
    rows = rows - uniform_filter1d(rows, round(FRAMES_PER_SEC), axis=1, mode="constant")
    length = rows.shape[1]
    size = 1 << int(np.ceil(np.log2(length + _LONGEST_LAG + 1)))
    spectrum = np.asarray(rfft(rows, size, axis=1))
    found = np.asarray(irfft(np.abs(spectrum) ** 2, size, axis=1))[:, : _LONGEST_LAG + 1]
    found = found / (length - np.arange(_LONGEST_LAG + 1))
    return found / (found[:, :1] + 1e-9)


def _local(window: Float[np.ndarray, "A L"], own: float | None, bpm: float) -> float | None:
    """The track's tempo, unless the window has a pulse of its own that is none of that tempo's relatives."""
    beats, pulse = candidates(window)
    if pulse < _PULSE or any(_alike(60 * FRAMES_PER_SEC / beat, bpm) for beat in beats):
        return bpm
    return own


def _stated(window: Float[np.ndarray, "A L"]) -> float | None:
    bpm, confidence = estimate(window)
    return bpm if confidence >= STATED_FROM else None


def _alike(bpm: float, other: float) -> bool:
    return abs(bpm / other - 1) <= _SAME


def _rounded(bpm: float | None) -> float | None:
    return None if bpm is None else round(bpm, 1)


def _combs(row: Float[np.ndarray, " L"], lags: np.ndarray) -> Float[np.ndarray, " M"]:
    """For each lag, the weighted mean of the row at those of its first four multiples that the row reaches."""
    times = np.arange(1, 5)
    multiples = lags[:, None] * times  # [M, 4]
    weights = times**-0.5 * (multiples < _LONGEST_LAG - _MARGIN)
    heights = _heights(row, multiples.ravel().astype(float)).reshape(multiples.shape)
    return (weights * heights).sum(axis=1) / weights.sum(axis=1)


def _heights(row: Float[np.ndarray, " L"], lags: Float[np.ndarray, " M"]) -> Float[np.ndarray, " M"]:
    """The row's highest value within reach of each lag; 0 past its end."""
    reach = np.maximum(1.0, lags * _REACH)
    low, high = np.floor(lags - reach).astype(int), np.ceil(lags + reach).astype(int)
    inside = lags < _LONGEST_LAG - _MARGIN
    at = low[:, None] + np.arange(2 * _MARGIN + 3)  # [M, W]
    values = np.where(at <= high[:, None], row[np.minimum(at, len(row) - 1)], -np.inf)
    return np.where(inside, values.max(axis=1), 0.0)


def _refined(row: Float[np.ndarray, " L"], beat: float) -> float:
    """A period to a fraction of a frame, read where several of them end: a parabola through the peak there."""
    times = max(1, int(4.5 * FRAMES_PER_SEC // beat))
    reach = max(1.5, beat * times * _REACH)
    low, high = int(beat * times - reach), int(beat * times + reach) + 1
    at = low + int(np.argmax(row[low : high + 1]))
    before, peak, after = row[at - 1 : at + 2]
    bend = before - 2 * peak + after
    aside = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return float(at + np.clip(aside, -1.0, 1.0)) / times


_EVIDENCE = 4 + (REGIONS + 1) * (len(_RELATIVES) + 4)
assert len(WEIGHTS) == _EVIDENCE
