"""Accompaniment: how chords, bass and drums move through a bar. Times are beats within the bar.

A figure takes a chord and yields (start, length, pitch, accent); `accent` scales the loudness around 1.
"""

import random
from collections.abc import Iterator

from starter.recipe.harmony import near, voicing
from starter.recipe.manners import DRUM_FIGURES, KICK

Hit = tuple[float, float, int, float]

# Where a chord is struck and how long it rings, in beats, for 4 beats to a bar.
CHORD_HITS: dict[str, tuple[tuple[float, float], ...]] = {
    "block": ((0, 1.9), (2, 1.9)),
    "pulse": ((0, 0.9), (1, 0.9), (2, 0.9), (3, 0.9)),
    "offbeat": ((0.5, 0.35), (1.5, 0.35), (2.5, 0.35), (3.5, 0.35)),
    "strum": ((0, 0.95), (1, 0.45), (1.5, 0.45), (2.5, 0.45), (3, 0.45), (3.5, 0.45)),
    "waltz": ((1, 0.8), (2, 0.8)),
    "bossa": ((0, 0.9), (1.5, 0.9), (3, 0.9)),
    "six-eight": ((1 / 3, 0.3), (2 / 3, 0.3), (4 / 3, 0.3), (5 / 3, 0.3)),
}
# Where the bass plays, how long, and which chord tone (0 root, 1 third, 2 fifth, 3 octave).
BASS_HITS: dict[str, tuple[tuple[float, float, int], ...]] = {
    "long": ((0, 2.9, 0),),
    "two": ((0, 1.4, 0), (2, 1.4, 2)),
    "pulse": tuple((i / 2, 0.42, 0) for i in range(8)),
    "syncopated": ((0, 0.6, 0), (0.75, 0.2, 0), (1.5, 0.4, 3), (2.5, 0.4, 0), (3.25, 0.4, 2)),
    "walking": ((0, 0.9, 0), (1, 0.9, 1), (2, 0.9, 2), (3, 0.9, 1)),
    "six-eight": ((0, 0.6, 0), (2 / 3, 0.3, 2), (1, 0.6, 0), (5 / 3, 0.3, 2)),
}


def chord_bar(figure: str, triad: tuple[int, ...], beats: int, centre: int) -> Iterator[Hit]:
    """One bar of chords."""
    pitches = voicing(triad, centre)
    if figure == "arpeggio":
        order = [*pitches, pitches[0] + 12, pitches[2], pitches[1]]
        for eighth in range(2 * beats):
            yield eighth / 2, 0.9, order[eighth % len(order)], 1.0 if eighth % 4 == 0 else 0.85
        return
    for start, length in CHORD_HITS[figure]:
        if start < beats:
            for string, pitch in enumerate(pitches):
                delay = 0.03 * string if figure == "strum" else 0.0
                yield start + delay, length, pitch, 1.0 if start == 0 else 0.88


def bass_bar(figure: str, triad: tuple[int, ...], beats: int) -> Iterator[Hit]:
    """One bar of bass, around E2."""
    root = near(triad[0], 40)
    tones = (root, root + triad[1] - triad[0], root + triad[2] - triad[0], root + 12)
    for start, length, tone in BASS_HITS[figure]:
        if start < beats:
            yield start, min(length, beats - start), tones[tone], 1.0 if start == 0 else 0.9


def drum_bar(figure: str, bar: int, rng: random.Random) -> Iterator[Hit]:
    """One bar of drums; now and then one more kick, so that bars are not all the same."""
    for drum, starts in DRUM_FIGURES[figure].items():
        for start in starts:
            yield start, 0.2, drum, 1.0 if start == int(start) else 0.75
    if bar % 4 == 3 and rng.random() < 0.5:
        last = max(DRUM_FIGURES[figure][KICK])
        yield last + 0.5, 0.2, KICK, 0.8
