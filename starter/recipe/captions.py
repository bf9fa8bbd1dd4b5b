"""Captions of a piece in varied wording: what is said is always true, and no caption says everything in one way."""

import random
import string

import numpy as np

from starter.recipe.score import Piece

LEAD = {
    "piano": ("piano", "{instrument}"),
    "guitar": ("guitar", "acoustic guitar", "{instrument}"),
    "strings": ("strings", "string section", "{instrument}"),
    "brass": ("brass", "{instrument}"),
    "organ": ("organ", "{instrument}"),
    "synth": ("synth", "synthesizer", "{instrument} synth"),
    "mallets": ("mallets", "mallet percussion", "{instrument} mallets"),
    "flute": ("flute", "woodwind {instrument}"),
    "steel drums": ("steel drums", "steel pan"),
}
WITH_DRUMS = ("with drums", "drums", "with a drum beat")
WITHOUT_DRUMS = ("no drums", "without drums", "drumless")
STRANGE = ("in {} style", "in the style of {}", "by {}", "{}")
STRANGE_SHARE = 0.2
MOODS = {"major": ("bright", "happy", "cheerful"), "minor": ("dark", "sad", "moody")}


def tempo_word(tempo_bpm: int) -> str:
    """Slow below 90, fast from 125."""
    return "slow" if tempo_bpm < 90 else "fast" if tempo_bpm >= 125 else "medium tempo"


def caption(piece: Piece, rng: random.Random) -> str:
    """One wording of what the piece is. The lead's family and the drums are always said; the rest comes and goes."""
    lead = rng.choice(LEAD[piece.family]).format(instrument=piece.instrument)
    drums = rng.choice(WITH_DRUMS if piece.drums else WITHOUT_DRUMS)
    over = f" over {piece.second} chords" if piece.second != piece.family else ""
    bpm = f"{piece.tempo_bpm} bpm"
    mood = rng.choice(MOODS[piece.mode])
    tempo = tempo_word(piece.tempo_bpm)
    forms = (
        [f"{tempo} {piece.manner}", f"{lead}{over}", drums, bpm, f"in {piece.key}"],
        [f"{lead}{over}", drums, f"{mood} {piece.manner}", bpm],
        [f"a {mood} {tempo} {piece.manner} for {lead}{over}", drums, bpm],
        [f"{piece.manner} with {lead}{over} in {piece.key}", bpm, drums],
        [f"{bpm} {piece.manner}", drums, f"{mood} {lead}{over}"],
    )
    parts = rng.choice(forms)
    if rng.random() < 0.25:
        rng.shuffle(parts)
    return ", ".join(parts)


def captions(piece: Piece, n: int) -> list[str]:
    """`n` wordings, decided by the piece's seed."""
    rng = random.Random(f"captions {piece.seed}")
    return [caption(piece, rng) for _ in range(n)]


def open_prompt(tempo_bpm: int) -> str:
    """A prompt that leaves open what plays."""
    return f"{tempo_word(tempo_bpm)}, {tempo_bpm} bpm"


def with_strange_words(caption: str, rng: np.random.Generator) -> str:
    """Now and then something is added that the music knows nothing of: a made-up name.

    So the model learns to let pass what it does not know, and a trigger word means nothing until an adapter learns it.
    """
    if rng.random() >= STRANGE_SHARE:
        return caption
    name = "".join(rng.choice(list(string.ascii_lowercase), size=rng.integers(3, 9)))
    phrase = STRANGE[rng.integers(len(STRANGE))].format(name)
    return f"{phrase}, {caption}" if rng.random() < 0.3 else f"{caption}, {phrase}"


def prompt(family: str, drums: bool, tempo_bpm: int, manner: str) -> str:
    """A plain prompt in the words of the captions, for measuring."""
    said = "with drums" if drums else "no drums"
    return f"{tempo_word(tempo_bpm)} {manner}, {family}, {said}, {tempo_bpm} bpm"
