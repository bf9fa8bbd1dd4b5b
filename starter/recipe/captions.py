"""Captions of a piece in varied wording: what is said is always true, and no caption says everything in one way."""

import random

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


def prompt(family: str, drums: bool, tempo_bpm: int, manner: str = "") -> str:
    """A plain prompt in the words of the captions, for measuring."""
    manner = manner or ("pop" if drums else "folk")
    said = "with drums" if drums else "no drums"
    return f"{tempo_word(tempo_bpm)} {manner}, {family}, {said}, {tempo_bpm} bpm"
