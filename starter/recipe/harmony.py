"""Keys, chords and progressions: names and MIDI pitches. It knows nothing of time."""

import random

TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}

# Degrees of the scale, counted from 0; four bars each.
PROGRESSIONS = {
    "major": ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 0), (0, 3, 0, 4), (5, 3, 0, 4), (0, 1, 4, 0)),
    "minor": ((0, 5, 2, 6), (0, 3, 4, 0), (0, 6, 5, 6), (0, 3, 6, 2), (0, 5, 3, 4)),
}
_QUALITY = {(4, 3): "", (3, 4): "m", (3, 3): "dim"}


class Key:
    """A tonic and a scale."""

    def __init__(self, tonic: int, mode: str) -> None:
        self.tonic, self.mode = tonic, mode
        self.scale = SCALES[mode]

    def pitch(self, degree: int) -> int:
        """Semitones above C of a degree; degrees run on over the octave in both directions."""
        octave, step = divmod(degree, 7)
        return self.tonic + 12 * octave + self.scale[step]

    def triad(self, degree: int) -> tuple[int, int, int]:
        """The chord on a degree: semitones above C, in root position. A minor key's fifth degree is made major."""
        root, third, fifth = (self.pitch(degree + step) for step in (0, 2, 4))
        if self.mode == "minor" and degree == 4:
            third += 1
        return root, third, fifth

    def chord_name(self, degree: int) -> str:
        """For example "F#m"."""
        root, third, fifth = self.triad(degree)
        return TONICS[root % 12] + _QUALITY[(third - root, fifth - third)]


def draw_key(rng: random.Random) -> Key:
    """Any of the 24."""
    return Key(rng.randrange(12), rng.choice(("major", "minor")))


def draw_degrees(rng: random.Random, key: Key, bars: int) -> list[int]:
    """A degree for every bar: a progression of four bars repeated, ending at home."""
    progression = rng.choice(PROGRESSIONS[key.mode])
    degrees = [progression[bar % 4] for bar in range(bars)]
    degrees[-1] = 0
    return degrees


def near(pitch_class: int, centre: int) -> int:
    """The pitch of this class that is nearest to a MIDI pitch."""
    return centre + (pitch_class - centre + 6) % 12 - 6


def voicing(triad: tuple[int, ...], centre: int) -> list[int]:
    """The chord's pitches close around a MIDI pitch, from low to high."""
    return sorted(near(pitch, centre) for pitch in triad)
