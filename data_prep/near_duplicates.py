"""Which tracks are the same recording in another shape: another encode or level, cut or longer, a little faster.

Stretches of 16 s of one track's print (`sound_print`) are looked for in the other's, at every second, with the pitch
classes shifted for a change of speed (audio shingles: Casey, Rhodes and Slaney, IEEE TASLP 16(5), 2008). Two tracks are
near-duplicates when four in ten of the shorter one's stretches, three at least, are found in the other, in order. What
is found coarsely is heard again at four times the resolution, at speeds up to 3.5 % apart, before it counts.

A track shorter than two stretches (24 s) is looked for as one, all of it but up to a second at either end, and both its
halves must be found as well, where the whole is found. On ten songs and four grooves, excerpts of 6 s (12 s) at another
speed, level and encode correlated with their song at 0.68 (0.76) or more three times in four, halves at 0.60 (0.71);
with other music at most at 0.46 (0.39), halves at 0.34 (0.29). So some altered copies of the shortest are missed.
Loops of one maker that share bass line and drums may be taken for copies (up to 0.88 between such).

What it does not find: another take, a cover, a live version (these are other recordings), a change of speed or pitch
beyond half a semitone, and tracks shorter than `SHORTEST_SEC`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from data_prep.sound_print import CLASSES, ROWS_PER_SEC

STRETCH_SEC = 16.0
MATCH = 0.55
"""The least correlation of a stretch with its copy at the fine resolution."""
_MAYBE = 0.4
_SHARE = 0.4
_FEWEST = 3  # of them, or all where there are fewer: songs on the same four chords share one or two
_EVERY_SEC = 8.0
_COARSE = 4  # rows a coarse one is the mean of
_SHIFTS = (-2, -1, 0, 1, 2)
_SPEEDS = tuple(1 + percent / 100 for percent in (-3.5, -2.8, -2.1, -1.4, -0.7, 0, 0.7, 1.4, 2.1, 2.8, 3.5))
_LEVELLED_SEC = 8.0
SHORTEST_SEC = 6.0
"""Of less, too little is left to know it by."""
_FEWEST_ROWS = 22  # of a track of 6 s, whose last moment is no whole row
_WHOLE_MATCH, _HALF_MATCH = 0.57, 0.48
_PLACES = 3
_MAYBE_SHORT = 0.25


@dataclass(frozen=True)
class Pair:
    """Two tracks that sound the same; `share` of the shorter one's stretches were found in the other."""

    first: str
    second: str
    share: float


def near_duplicates(prints: Mapping[str, UInt8[np.ndarray, "T 36"]]) -> list[Pair]:
    """The pairs among tracks, by their names, each with its names in the given order."""
    tracks = {name: _Track(value) for name, value in prints.items()}
    tracks = {name: track for name, track in tracks.items() if not is_too_short(track.rows)}
    found = []
    for first, second in combinations(tracks, 2):
        shorter, longer = sorted((tracks[first], tracks[second]), key=lambda track: len(track.rows))
        if len(shorter.starts) < 2:
            found += [Pair(first, second, 1.0)] if _is_within(shorter, longer) else []
            continue
        hits, stretches = _found(shorter, longer), len(shorter.starts)
        if hits >= _needed(stretches):
            found.append(Pair(first, second, round(hits / stretches, 3)))
    return found


def is_too_short(print_: Shaped[np.ndarray, "T 36"]) -> bool:
    """Whether a track is too short to be compared with others."""
    return len(print_) < _FEWEST_ROWS


def groups(names: Sequence[str], pairs: Sequence[Pair]) -> dict[str, str]:
    """For each name, the first one of all that are the same as it, directly or through others."""
    leader = {name: name for name in names}

    def root(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    order = {name: index for index, name in enumerate(names)}
    for pair in pairs:
        one, other = sorted((root(pair.first), root(pair.second)), key=order.__getitem__)
        leader[other] = one
    return {name: root(name) for name in names}


class _Track:
    """A print made ready to be compared: what changes in it, not what is always there."""

    def __init__(self, print_: UInt8[np.ndarray, "T 36"]) -> None:
        self.rows = _levelled(print_)
        whole = len(self.rows) // _COARSE * _COARSE
        self.coarse = self.rows[:whole].reshape(-1, _COARSE, CLASSES).mean(axis=1)
        self.size = round(STRETCH_SEC * ROWS_PER_SEC / _COARSE)
        step = round(_EVERY_SEC * ROWS_PER_SEC / _COARSE)
        self.starts = list(range(0, len(self.coarse) - self.size + 1, step))
        self.places = _unit(_stretches(_narrow(self.coarse), self.size))

    def asked(self) -> Float[np.ndarray, "S V W"]:
        """Each stretch at each shift of the pitch classes."""
        shifted = [
            _stretches(_narrow(np.roll(self.coarse, shift, axis=1)), self.size)[self.starts] for shift in _SHIFTS
        ]
        return np.stack([_unit(one) for one in shifted], axis=1)


def _needed(stretches: int) -> int:
    return min(stretches, max(_FEWEST, ceil(_SHARE * stretches)))


def _found(shorter: _Track, longer: _Track) -> int:
    """How many of the shorter track's stretches are in the longer one, in order."""
    likeness = shorter.asked() @ longer.places.T  # [S, V, P]
    best = likeness.max(axis=1)
    maybe = np.flatnonzero(best.max(axis=1) >= _MAYBE)
    if len(maybe) < _needed(len(shorter.starts)):
        return 0
    hits = []
    for index in maybe:
        place = int(best[index].argmax())
        if _heard_again(shorter, shorter.starts[index], longer, place) >= MATCH:
            hits.append((shorter.starts[index], place))
    return _in_order(hits)


def _is_within(short: _Track, longer: _Track) -> bool:
    """Whether a short track is in the longer one: the whole of it, and each half at the same place."""
    spare = min(round(ROWS_PER_SEC), (len(short.rows) - _FEWEST_ROWS) // 2 + 1)
    asked = short.rows[spare : len(short.rows) - spare]
    for place in _maybe_places(asked, longer):
        low = max(0, (place - 1) * _COARSE)
        around = longer.rows[low : (place + 2) * _COARSE + round(len(asked) * _SPEEDS[-1])]
        for stretch in _at_speeds(around, len(asked)):
            if any(_halves_match(np.roll(asked, shift, axis=1), stretch) for shift in _SHIFTS):
                return True
    return False


def _maybe_places(asked: Float[np.ndarray, "T 36"], longer: _Track) -> list[int]:
    """The likeliest places of a short track at the coarse resolution."""
    size = len(asked) // _COARSE
    coarse = asked[: size * _COARSE].reshape(size, _COARSE, CLASSES).mean(axis=1)
    places = _unit(_stretches(_narrow(longer.coarse), size))
    if not len(places):
        return [0]
    likeness = np.max([places @ _one(coarse, shift) for shift in _SHIFTS], axis=0)
    return [int(place) for place in np.argsort(-likeness)[:_PLACES] if likeness[place] >= _MAYBE_SHORT]


def _halves_match(asked: Float[np.ndarray, "T 36"], stretch: Float[np.ndarray, "U 36"]) -> bool:
    """Whether a stretch holds what is asked for, as a whole and in both halves at the same place."""
    size, half = len(asked), len(asked) // 2
    there = _unit(_stretches(_narrow(stretch), size))
    if not len(there):
        return False
    whole = there @ _one(asked, 0)
    at = int(whole.argmax())
    found = stretch[at : at + size]
    halves = (float(_one(found[part], 0) @ _one(asked[part], 0)) for part in (slice(0, half), slice(size - half, size)))
    return float(whole[at]) >= _WHOLE_MATCH and all(value >= _HALF_MATCH for value in halves)


def _in_order(hits: Sequence[tuple[int, int]]) -> int:
    """How many hits have a neighbour that lies as far on in one track as in the other, within a twentieth."""
    kept = 0
    for index, (start, place) in enumerate(hits):
        near = [*hits[max(0, index - 2) : index], *hits[index + 1 : index + 3]]
        kept += any(abs((p - place) - (s - start)) <= 1 + 0.05 * abs(s - start) for s, p in near)
    return kept if kept >= 2 else 0


def _heard_again(shorter: _Track, start: int, longer: _Track, place: int) -> float:
    """The best correlation at the fine resolution, around a place that was found, over speeds and shifts."""
    size = round(STRETCH_SEC * ROWS_PER_SEC)
    asked = shorter.rows[start * _COARSE : start * _COARSE + size]
    low = max(0, (place - 1) * _COARSE)
    around = longer.rows[low : (place + 2) * _COARSE + round(size * _SPEEDS[-1])]
    best = -1.0
    for stretch in _at_speeds(around, size):
        there = _unit(_stretches(_narrow(stretch), size)) if len(stretch) >= size else np.zeros((0, 1))
        if len(there):
            best = max(best, *(float((there @ _one(asked, shift)).max()) for shift in _SHIFTS))
    return best


def _one(rows: Float[np.ndarray, "T 36"], shift: int) -> Float[np.ndarray, " W"]:
    return _unit(_narrow(np.roll(rows, shift, axis=1)).T.reshape(1, -1))[0]


def _at_speeds(rows: Float[np.ndarray, "T 36"], size: int) -> Iterator[Float[np.ndarray, "U 36"]]:
    for speed in _SPEEDS:
        at = np.arange(0, len(rows) - 1, speed)
        below = at.astype(int)
        part = (at - below)[:, None]
        yield (1 - part) * rows[below] + part * rows[below + 1]


def _levelled(print_: UInt8[np.ndarray, "T 36"]) -> Float[np.ndarray, "T 36"]:
    """The print less its mean over the 8 s around each moment."""
    from scipy.ndimage import uniform_filter1d

    rows = print_.astype(np.float32)
    return rows - uniform_filter1d(rows, round(_LEVELLED_SEC * ROWS_PER_SEC), axis=0, mode="nearest")


def _narrow(rows: Float[np.ndarray, "T 36"]) -> Float[np.ndarray, "T 12"]:
    return rows.reshape(len(rows), 12, CLASSES // 12).sum(axis=2)


def _stretches(rows: Float[np.ndarray, "T C"], size: int) -> Float[np.ndarray, "P W"]:
    """All runs of `size` rows, each as one vector."""
    if len(rows) < size:
        return np.zeros((0, size * rows.shape[1]), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(rows, size, axis=0)  # [P, C, size]
    return windows.reshape(len(windows), -1)


def _unit(vectors: Float[np.ndarray, "P W"]) -> Float[np.ndarray, "P W"]:
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    return (centred / (np.linalg.norm(centred, axis=1, keepdims=True) + 1e-3)).astype(np.float32)
