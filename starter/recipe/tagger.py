"""How far the embedded tagger can be believed: pieces whose instruments are known, each tag's precision by threshold.

    python -m starter.recipe.tagger /tmp/tagger.npz          # composes, renders and listens; some minutes
    python -m starter.recipe.tagger /tmp/tagger.npz --show   # the table again from what was heard

The composer's pieces are played by one General MIDI instrument at a time, alone (melody and chords), and with bass and
drums. Truth is what the score says; where a sound may be called either way (an electric piano a piano? a string section
a violin?) the piece is left out for that tag. Sampled instruments are cleaner than recordings, so these figures are
an upper bound for real songs; docs/listeners.md sets them beside real ones.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from data_prep.listeners.musicnn.model import MODELS, score
from data_prep.listeners.musicnn.tags import TAGS
from data_prep.listeners.musicnn.words import WORDS
from starter.recipe.compose import compose
from starter.recipe.render import render
from starter.recipe.score import Piece

FIRST_SEED = 3_000_000
SAMPLE_RATE_HZ = 16_000
SEC = 9.0
SOLO, BAND = "alone", "with bass and drums"


@dataclass(frozen=True)
class Instrument:
    """A General MIDI program (counted from 0), the tags that are true of it, and those left open."""

    name: str
    program: int
    true: frozenset[str]
    open: frozenset[str] = frozenset()


def _i(name: str, program: int, true: str, open: str = "") -> Instrument:
    return Instrument(name, program, frozenset(filter(None, true.split(","))), frozenset(filter(None, open.split(","))))


INSTRUMENTS = (
    _i("grand piano", 0, "piano"),
    _i("electric piano", 4, "", "piano,synth,electronic"),
    _i("harpsichord", 6, "harpsichord", "guitar,classical"),
    _i("vibraphone", 11, ""),
    _i("church organ", 19, "", "classical,choir"),
    _i("nylon guitar", 24, "guitar", "acoustic,harp,classical"),
    _i("steel guitar", 25, "guitar", "acoustic,country"),
    _i("overdriven guitar", 29, "guitar,rock", "metal,hard rock"),
    _i("distorted guitar", 30, "guitar,rock", "metal,hard rock,heavy metal"),
    _i("violin", 40, "violin,strings", "classical"),
    _i("cello", 42, "cello,strings", "violin,classical"),
    _i("string section", 48, "strings", "violin,cello,classical"),
    _i("harp", 46, "harp", "guitar,classical,strings"),
    _i("choir", 52, "choir", "choral,opera,vocal,vocals,voice,singing,female,male,woman,man"),
    _i("trumpet", 56, "", "jazz,classical"),
    _i("saxophone", 65, "", "jazz"),
    _i("flute", 73, "flute", "classical"),
    _i("recorder", 74, "flute", "classical"),
    _i("saw lead", 81, "synth,electronic", "techno,dance"),
    _i("square lead", 80, "synth,electronic", "techno,dance"),
    _i("warm pad", 89, "synth", "electronic,ambient,strings"),
    _i("sitar", 104, "sitar", "indian,guitar"),
)
WITH_DRUMS = frozenset({"drums"})
OPEN_WITH_DRUMS = frozenset({"beat", "beats", "rock", "pop", "jazz", "dance", "techno", "guitar"})
JUDGED = ("guitar", "piano", "strings", "violin", "cello", "flute", "harp", "harpsichord", "sitar", "synth", "choir",
          "drums", "electronic")  # fmt: skip
VOICE = ("vocal", "vocals", "voice", "singing", "female", "male", "woman", "man", "female voice", "female vocal",
         "male voice", "male vocal", "female vocalists", "male vocalists", "female vocalist")  # fmt: skip


def played_by(instrument: Instrument, seed: int, mode: str) -> Piece:
    """The seed's piece with that instrument for melody and chords; bass and drums only in a band."""
    piece = compose(seed, drums=mode == BAND)
    roles = ("lead", "chords") if mode == SOLO else ("lead", "chords", "bass", "drums")
    parts = [part for part in piece.parts if part.role in roles]
    named = {"instrument": instrument.name, "program": instrument.program}
    return replace(piece, parts=tuple(replace(p, **named) if p.role in ("lead", "chords") else p for p in parts))


def truth(instrument: Instrument, mode: str, tag: str) -> bool | None:
    """Whether a tag is true of it; None where either answer could be defended."""
    if mode == BAND and tag in WITH_DRUMS:
        return True
    if tag in instrument.true:
        return True
    if tag in instrument.open or (mode == BAND and tag in OPEN_WITH_DRUMS):
        return None
    return False


def listen(seeds_each: int) -> dict[str, np.ndarray]:
    """Scores [N, 50] of each model, with each piece's instrument and mode."""
    cases = [(i, mode) for i in range(len(INSTRUMENTS)) for mode in (SOLO, BAND) for _ in range(seeds_each)]
    pieces = [played_by(INSTRUMENTS[i], FIRST_SEED + n, mode) for n, (i, mode) in enumerate(cases)]
    scores: dict[str, list[np.ndarray]] = {name: [] for name in MODELS}
    for audio in render(pieces, SAMPLE_RATE_HZ):
        for name, found in score(audio[: round(SEC * SAMPLE_RATE_HZ)]).items():
            scores[name].append(found.scores)
    table = {name: np.stack(rows) for name, rows in scores.items()}
    return table | {"instrument": np.array([i for i, _ in cases]), "mode": np.array([mode for _, mode in cases])}


def lowest_threshold(
    scores: Float[np.ndarray, " N"], true: Bool[np.ndarray, " N"], precision: float
) -> tuple[float, float, float] | None:
    """The lowest threshold from which on the precision stays, the precision and the recall there; None where none."""
    order = np.argsort(-scores)
    right = np.cumsum(true[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(right >= precision)
    if not len(enough) or not true.any():
        return None
    last = int(enough[-1])
    return float(scores[order][last]), float(right[last]), float(true[order][: last + 1].sum() / true.sum())


def table(heard: dict[str, np.ndarray]) -> str:
    """Each judged tag: pieces, precision and recall at the threshold in use; the lowest one with a precision of 0.9."""
    lines = ["| tag | pieces with / without | from | precision | recall | 0.9 from | recall |", "|---" * 7 + "|"]
    cases = [(INSTRUMENTS[i], str(mode)) for i, mode in zip(heard["instrument"], heard["mode"], strict=True)]
    for tag in JUDGED:
        entry = next(entry for entry in WORDS if entry.tag == tag)
        facts = [truth(*case, tag) for case in cases]
        kept = np.array([fact is not None for fact in facts])
        true = np.array([bool(fact) for fact in facts])[kept]
        scores = heard[entry.model][kept, TAGS[entry.model].index(tag)]
        said = scores >= entry.threshold
        right = f"{true[said].mean():.2f}" if said.any() else "never said"
        found = lowest_threshold(scores, true, 0.9)
        best = f"{found[0]:.2f} | {found[2]:.2f}" if found else "nowhere | "
        counts = f"{true.sum()} / {(~true).sum()} | {entry.threshold:.2f}"
        lines.append(f"| {tag} | {counts} | {right} | {said[true].mean():.2f} | {best} |")
    return "\n".join([*lines, "", *_voice_lines(heard, cases)])


def _voice_lines(heard: dict[str, np.ndarray], cases: Sequence[tuple[Instrument, str]]) -> list[str]:
    nobody = np.array([instrument.name != "choir" for instrument, _ in cases])
    lines = ["highest score of a voice where nobody sings:"]
    for tag in VOICE:
        for model in MODELS:
            if tag in TAGS[model]:
                values = np.sort(heard[model][nobody, TAGS[model].index(tag)])[::-1]
                lines.append(f"  {model} {tag}: {', '.join(f'{value:.2f}' for value in values[:4])}")
    return lines


def main() -> None:
    """Compose, render, listen, and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heard", type=Path)
    parser.add_argument("--show", action="store_true", help="only the table of an earlier run")
    parser.add_argument("--each", type=int, default=3, help="pieces of each instrument and mode")
    args = parser.parse_args()
    if not args.show:
        np.savez(args.heard, **listen(args.each))  # pyright: ignore[reportArgumentType]
    with np.load(args.heard, allow_pickle=False) as stored:
        print(table(dict(stored)))


if __name__ == "__main__":
    main()
