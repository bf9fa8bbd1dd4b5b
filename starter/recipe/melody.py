"""The lead: a rhythm of two bars that comes back, and a line that walks the scale and meets chords on strong beats."""

import random

from starter.recipe.figures import Hit
from starter.recipe.harmony import Key, near


def draw_rhythm(rng: random.Random, beats: int, divisions: int, notes_per_beat: float) -> list[tuple[float, float]]:
    """Starts and lengths in beats within a bar: a note on the first beat, others where the dice say."""
    grid = [index / divisions for index in range(beats * divisions)]
    chance = min(0.95, notes_per_beat / divisions)
    starts = [at for at in grid if at == 0 or rng.random() < chance * (1.25 if at == int(at) else 0.85)]
    return [(at, end - at) for at, end in zip(starts, [*starts[1:], float(beats)], strict=True)]


def lead_line(
    rng: random.Random, key: Key, degrees: list[int], beats: int, divisions: int, density: float, low: int
) -> list[tuple[int, Hit]]:
    """The whole melody as (bar, hit): phrases of four bars in the form A A B A, the last note long and at home."""
    rhythms = {name: [draw_rhythm(rng, beats, divisions, density) for _ in range(2)] for name in "AB"}
    contours = {name: [rng.choice((-2, -1, -1, 1, 1, 2)) for _ in range(64)] for name in "AB"}
    degree = 7 * ((low + 6 - key.tonic) // 12) + rng.choice((0, 2, 4))
    line: list[tuple[int, Hit]] = []
    for bar, chord in enumerate(degrees):
        name = "B" if (bar // 4) % 4 == 2 else "A"
        rhythm = rhythms[name][bar % 2]
        last = bar == len(degrees) - 1
        for index, (start, length) in enumerate([(0.0, float(beats))] if last else rhythm):
            degree = _inside(degree + contours[name][(8 * (bar % 4) + index) % 64], key, low)
            pitch = key.pitch(degree)
            if start == 0 or (start == int(start) and rng.random() < 0.6):
                pitch = _to_chord(key.triad(chord), pitch)
            line.append((bar, (start, length * 0.92, pitch, 1.0 if start == int(start) else 0.85)))
    return line


def _to_chord(triad: tuple[int, ...], pitch: int) -> int:
    return min((near(tone, pitch) for tone in triad), key=lambda tone: abs(tone - pitch))


def _inside(degree: int, key: Key, low: int) -> int:
    """Fold a degree back into two octaves above `low`."""
    while key.pitch(degree) > low + 22:
        degree -= 7
    while key.pitch(degree) < low:
        degree += 7
    return degree
