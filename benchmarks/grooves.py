"""Grooves of known tempo, synthesised: drum patterns as people write them, with bass and chords on top, all varied by
chance (fills, ghost notes, timing, sounds, what plays along).

A pattern is one bar, a letter or a dot per step, for each drum: `x` always, `o` two times in three, `.` never. The
family's range of tempi is where such music is played, so that a pattern's tempo is what a musician would count.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

RATE_HZ = 22_050


@dataclass(frozen=True)
class Family:
    """One kind of groove: steps per beat, beats per bar, range of tempi, and the drums' bars."""

    name: str
    low_bpm: float
    high_bpm: float
    steps: int
    beats: int
    kick: tuple[str, ...]
    snare: tuple[str, ...]
    hat: tuple[str, ...]
    bass: tuple[str, ...] = ("x",)
    chords: tuple[str, ...] = ("x",)
    swing: float = 0.0


FAMILIES = (
    Family(
        "rock, eighths", 70, 165, 4, 4,
        ("x.......x.......", "x.....o.x.......", "x.....x.x.x.....", "x.......x.x....."),
        ("....x.......x...",),
        ("x.x.x.x.x.x.x.x.",),
        ("x.x.x.x.x.x.x.x.", "x.......x.......", "x...x...x...x..."),
        ("x...............", "x.......x.......", "x.x.x.x.x.x.x.x."),
    ),
    Family(
        "ballad, eighths", 60, 84, 4, 4,
        ("x.......x.......", "x.....x.x......."),
        ("....x.......x...",),
        ("x.x.x.x.x.x.x.x.",),
        ("x.......x.......", "x...............", "x.....x.x......."),
        ("x.......x.......", "x...x...x...x...", "x..............."),
    ),
    Family(
        "ballad, sixteenths", 60, 80, 4, 4,
        ("x.......x.......", "x.....x.x.......", "x.......x.o....."),
        ("....x.......x...",),
        ("xxxxxxxxxxxxxxxx",),
        ("x.......x.......", "x.....x.x......."),
        ("x...............", "x.x.x.x.x.x.x.x."),
    ),
    Family(
        "four on the floor", 110, 140, 4, 4,
        ("x...x...x...x...",),
        ("....x.......x...", "................"),
        ("..x...x...x...x.", "x.x.x.x.x.x.x.x.", "xxxxxxxxxxxxxxxx"),
        ("..x...x...x...x.", "x.x.x.x.x.x.x.x.", "..xx..xx..xx..xx"),
        ("..x...x...x...x.", "x..x..x.x..x..x.", "x..............."),
    ),
    Family(
        "disco", 105, 130, 4, 4,
        ("x...x...x...x...",),
        ("....x.......x...",),
        ("x.xxx.xxx.xxx.xx", "..x...x...x...x."),
        ("x.x.x.x.x.x.x.x.", "x..x..x.x..x..x."),
        ("..x...x...x...x.", "x..............."),
    ),
    Family(
        "funk", 90, 118, 4, 4,
        ("x..x..x...x..o..", "x.x....x..x..x..", "x......x..x....."),
        ("....x..o.o..x..o", "....x..x.x..x..."),
        ("xxxxxxxxxxxxxxxx", "x.x.x.x.x.x.x.x."),
        ("x..x..x...x..x..", "x.x....x..x..x..", "x..xx.x..xx.x.x."),
        ("..x..x....x..x..", "x...............", "....x.......x..."),
    ),
    Family(
        "boom bap", 80, 100, 4, 4,
        ("x......x..x.....", "x.x....x..x.....", "x..x......x....."),
        ("....x.......x...",),
        ("x.x.x.x.x.x.x.x.",),
        ("x......x..x.....", "x.......x......."),
        ("x...............", "x..x......x....."),
        0.15,
    ),
    Family(
        "drum and bass", 160, 180, 4, 4,
        ("x.........x.....", "x.x.......x....."),
        ("....x.......x...", "....x..o.o..x..o"),
        ("x.x.x.x.x.x.x.x.", "xxxxxxxxxxxxxxxx"),
        ("x...............", "x.......x.......", "x.....x...x....."),
        ("x...............",),
    ),
    Family(
        "punk", 155, 180, 4, 4,
        ("x...x...x...x...", "x.x.....x.x.....", "x...x.x.x...x.x."),
        ("..x...x...x...x.", "....x.......x..."),
        ("x.x.x.x.x.x.x.x.", "x...x...x...x..."),
        ("x.x.x.x.x.x.x.x.",),
        ("x.x.x.x.x.x.x.x.", "x..............."),
    ),
    Family(
        "train beat", 90, 140, 4, 4,
        ("x...x...x...x...", "x.......x......."),
        ("xxxxxxxxxxxxxxxx", "xxoxxxoxxxoxxxox"),
        ("................", "..x...x...x...x."),
        ("x...x...x...x...", "x.......x......."),
        ("....x.......x...", "..x...x...x...x."),
    ),
    Family(
        "bossa nova", 110, 150, 4, 4,
        ("x.....xx.....xx.", "x..x....x..x...."),
        ("x..x..x...x..x..", "x..x....x..x.x.."),
        ("x.x.x.x.x.x.x.x.",),
        ("x.....x.x.....x.", "x.......x......."),
        ("x..x..x...x..x..", "x...x..x...x..x."),
    ),
    Family(
        "reggae one drop", 66, 90, 4, 4,
        ("........x.......", "........x.......", "x.......x......."),
        ("........x.......", "....x.......x..."),
        ("x.x.x.x.x.x.x.x.",),
        ("x.....x.x.......", "..x.x.x.x......."),
        ("....x.......x...", "..x...x...x...x."),
    ),
    Family(
        "swing", 110, 180, 3, 4,
        ("x..x..x..x..", "............", "x.....x....."),
        ("............", "..o.....o...", ".....o......"),
        ("x..x.xx..x.x",),
        ("x..x..x..x..",),
        ("x.....x.....", "..x.....x...", "x..........."),
    ),
    Family(
        "shuffle", 80, 140, 3, 4,
        ("x.....x.....", "x.....x.x..."),
        ("...x.....x..",),
        ("x.xx.xx.xx.x",),
        ("x..x..x..x..", "x.xx.xx.xx.x"),
        ("x...........", "x..x..x..x.."),
    ),
    Family(
        "waltz", 90, 170, 2, 3,
        ("x.....",),
        ("..x.x.", "....x."),
        ("x.x.x.", "xxxxxx"),
        ("x.....",),
        ("..x.x.", "x....."),
    ),
    Family(
        "bass and guitar", 72, 150, 4, 4,
        ("................",),
        ("................",),
        ("................",),
        ("x...x...x...x...", "x.....x.x.....x.", "x.......x......."),
        ("x.x.x.x.x.x.x.x.", "x...x...x...x...", "x.x.xxx.x.x.xxx.", "..x...x...x...x."),
    ),
    Family(
        "piano eighths", 66, 110, 4, 4,
        ("................",),
        ("................",),
        ("................",),
        ("x...............", "x.......x......."),
        ("x.x.x.x.x.x.x.x.", "x.xxx.x.x.x.x.x.", "x...x...x...x..."),
    ),
    Family(
        "march", 100, 130, 4, 4,
        ("x...x...x...x...", "x.......x......."),
        ("x.xxx.xxx.xxx.xx", "....x.......x...", "x.x.x.xxx.x.x.xx"),
        ("................", "x..............."),
        ("x...x...x...x...", "x.......x......."),
        ("..x...x...x...x.", "....x.......x..."),
    ),
    Family(
        "breakbeat", 100, 140, 4, 4,
        ("x.x.......x.....", "x.x....x..x..x.."),
        ("....x..o.o..x..o", "....x.......x..."),
        ("x.x.x.x.x.x.x.x.",),
        ("x.......x.......", "x..x..x.x......."),
        ("x...............",),
    ),
    Family(
        "techno", 125, 150, 4, 4,
        ("x...x...x...x...",),
        ("................", "....x.......x..."),
        ("xxxxxxxxxxxxxxxx", "..x...x...x...x."),
        ("xxxxxxxxxxxxxxxx", "..x...x...x...x.", ".xxx.xxx.xxx.xxx"),
        ("x..x..x...x..x..", "x...............", "......x.......x."),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Groove:
    """A rendered groove."""

    family: str
    bpm: float
    audio: Float[np.ndarray, " N"] = field(repr=False)


def groove(family: Family, seed: int, sec: float = 30.0, bpm: float | None = None) -> Groove:
    """One groove of a family; its tempo, its bars, its sounds and what plays along follow from the seed."""
    rng = np.random.default_rng([seed, sum(map(ord, family.name))])
    bpm = float(bpm or round(family.low_bpm * (family.high_bpm / family.low_bpm) ** rng.random(), 1))
    step_sec = 60 / bpm / family.steps
    bars = int(sec / (step_sec * family.steps * family.beats)) + 1
    audio = np.zeros(round((sec + 2) * RATE_HZ), np.float32)
    feel = _Feel(rng.uniform(0.0, 0.012), family.swing, step_sec)
    drums = {"kick": (family.kick, 1.0), "snare": (family.snare, 0.8), "hat": (family.hat, rng.uniform(0.15, 0.5))}
    for name, (patterns, level) in drums.items():
        pattern, hit = str(rng.choice(patterns)), _drum(name, rng)
        for at, gain in _hits(pattern, bars, feel, rng, accents=name == "hat"):
            _add(audio, at, hit * level * gain)
    _tune(audio, family, bars, feel, rng)
    audio = audio[: round(sec * RATE_HZ)] + rng.normal(0, 10 ** rng.uniform(-4.5, -3), round(sec * RATE_HZ))
    return Groove(family.name, bpm, (0.5 * audio / np.abs(audio).max()).astype(np.float32))


@dataclass(frozen=True)
class _Feel:
    """How far hits stray from the grid (deviation in seconds), and how late every second step is, in steps."""

    loose_sec: float
    swing: float
    step_sec: float

    def at(self, step: int, rng: np.random.Generator) -> float:
        late = self.swing if step % 2 else 0.0
        return max(0.0, (step + late) * self.step_sec + rng.normal(0, self.loose_sec))


def _hits(pattern: str, bars: int, feel: _Feel, rng: np.random.Generator, accents: bool = False):
    for bar in range(bars):
        for index, sign in enumerate(pattern):
            if sign == "x" or (sign == "o" and rng.random() < 2 / 3):
                strong = 1.0 if not accents or index % 4 == 0 else 0.6
                yield (
                    feel.at(bar * len(pattern) + index, rng),
                    strong * (0.35 if sign == "o" else rng.uniform(0.8, 1.0)),
                )


def _drum(name: str, rng: np.random.Generator) -> Float[np.ndarray, " N"]:
    t = np.arange(round(0.35 * RATE_HZ)) / RATE_HZ
    noise = rng.normal(0, 1, len(t))
    if name == "kick":
        hz = rng.uniform(45, 65) + rng.uniform(60, 160) * np.exp(-t * rng.uniform(25, 50))
        click = 0.15 * noise * np.exp(-t * 300)
        return np.sin(2 * np.pi * np.cumsum(hz) / RATE_HZ) * np.exp(-t * rng.uniform(8, 18)) + click
    if name == "snare":
        tone = np.sin(2 * np.pi * rng.uniform(160, 240) * t) * np.exp(-t * 25)
        return 0.5 * tone + 0.5 * noise * np.exp(-t * rng.uniform(12, 30))
    high = np.diff(noise, n=2, prepend=[0, 0]) * 0.4
    return high * np.exp(-t * rng.uniform(30, 110))


def _tune(audio: np.ndarray, family: Family, bars: int, feel: _Feel, rng: np.random.Generator) -> None:
    """Bass and chords; the harmony changes once a bar, or every second one."""
    root, progression = rng.uniform(36, 47), rng.permutation([0, 5, 7, 9])
    every, quiet = int(rng.choice([1, 1, 2])), not family.kick[0].strip(".")
    bass_level, chord_level = rng.uniform(0.2, 0.6), rng.choice([0.0, 0.15, 0.3]) + 0.2 * quiet
    bass, chords = str(rng.choice(family.bass)), str(rng.choice(family.chords))
    for bar in range(bars):
        note = root + progression[bar // every % 4]
        for pattern, level, notes in ((bass, bass_level, (0,)), (chords, chord_level, (24, 28 - bar % 2, 31))):
            starts = [i for i, sign in enumerate(pattern) if sign == "x"]
            for index, start in enumerate(starts):
                length = (starts[index + 1] if index + 1 < len(starts) else len(pattern)) - start
                sound = _note([note + n for n in notes], min(2.5, 0.9 * length * feel.step_sec), rng)
                _add(audio, feel.at(bar * len(pattern) + start, rng), level * rng.uniform(0.85, 1) * sound)


def _note(pitches: list[float], sec: float, rng: np.random.Generator) -> Float[np.ndarray, " N"]:
    t = np.arange(max(64, round(sec * RATE_HZ))) / RATE_HZ
    fall = np.exp(-t * 2.5) * np.minimum(1, t / 0.008) * np.minimum(1, (t[-1] - t) / 0.02)
    waves = [np.sin(2 * np.pi * 440 * 2 ** ((p - 69) / 12) * k * t) / k**1.3 for p in pitches for k in (1, 2, 3, 4)]
    return np.sum(waves, axis=0) / len(pitches) * fall


def _add(audio: np.ndarray, at_sec: float, sound: np.ndarray) -> None:
    start = round(at_sec * RATE_HZ)
    part = sound[: max(0, len(audio) - start)]
    audio[start : start + len(part)] += part
