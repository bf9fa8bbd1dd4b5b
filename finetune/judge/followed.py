"""Does a piece keep to its prompt? Tempo and key asked for in words, against those measured of the sound.

Both estimates are wrong now and then, so the base is asked the same: only the difference says something of the
adapter. Half and double tempo count as right, since listeners tap either; a key counts as right with its relative
(A minor, C major), which has the same notes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from data_prep.features import measure_features

WITHIN, HOP_SEC = 0.08, 0.01
NOTES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
BPM = re.compile(r"(\d{2,3}(?:\.\d+)?)\s*bpm\b", re.IGNORECASE)
KEY = re.compile(r"\b((?-i:[A-G])|(?<=\bin )[a-g])(?:[ -]?(sharp|flat|#|♯|b|♭))?[ -](major|minor)\b", re.IGNORECASE)
"""A small letter is a key only behind "in": "a major hit" is none."""
ACCIDENTALS = {"sharp": 1, "#": 1, "♯": 1, "flat": -1, "b": -1, "♭": -1}


@runtime_checkable
class Agreement(Protocol):
    """How well pieces and texts agree by some model's judgement, one number a piece; higher is better."""

    name: str

    def agree(
        self, audio: Sequence[Float[np.ndarray, "C _"]], prompts: Sequence[str], sample_rate_hz: int
    ) -> Float[np.ndarray, " N"]:
        """One number for each piece; NaN where the prompt says nothing that the model knows."""
        ...


@dataclass(frozen=True)
class Followed:
    """Of one piece: whether tempo and key are those asked for; None where nothing was asked or could be measured."""

    tempo: bool | None
    key: bool | None


def follows(audio: Float[np.ndarray, "C N"], prompt: str, sample_rate_hz: int) -> Followed:
    """Compare a piece with its prompt; only what the prompt names is measured."""
    bpm, key = asked_tempo(prompt), asked_key(prompt)
    measured = None
    if key is not None:
        found = measure_features(audio, sample_rate_hz).key
        measured = None if found is None else asked_key(found)
    return Followed(
        None if bpm is None else tempo_agrees(tempo_bpm(audio, sample_rate_hz), bpm),
        None if key is None else measured is not None and _scale(measured) == _scale(key),
    )


def tempo_bpm(audio: Float[np.ndarray, "C N"], sample_rate_hz: int) -> float:
    """The strongest period of the onsets near 120 bpm (librosa's), 0 for silence. It always answers, which a count of
    right and wrong wants; for captions `data_prep` asks for more evidence.
    """
    import librosa

    mono = np.ascontiguousarray(audio.mean(axis=0), dtype=np.float32)
    if not mono.any():
        return 0.0
    hop = max(1, round(sample_rate_hz * HOP_SEC))
    onsets = librosa.onset.onset_strength(y=mono, sr=sample_rate_hz, hop_length=hop)
    return float(librosa.feature.tempo(onset_envelope=onsets, sr=sample_rate_hz, hop_length=hop)[0])


def asked_tempo(prompt: str) -> float | None:
    """The tempo that a text names in bpm."""
    found = BPM.search(prompt)
    return float(found[1]) if found else None


def asked_key(prompt: str) -> tuple[int, bool] | None:
    """The key that a text names: pitch class from C, and whether it is minor."""
    found = KEY.search(prompt)
    if not found:
        return None
    step = ACCIDENTALS[found[2].lower()] if found[2] else 0
    return (NOTES[found[1].lower()] + step) % 12, found[3].lower() == "minor"


def tempo_agrees(found_bpm: float, asked_bpm: float, *, octaves: bool = True) -> bool:
    """Whether a tempo is the one asked for within 8 % (as in tempo estimation contests); its half or its double too,
    unless `octaves` is off.
    """
    factors = (0.5, 1.0, 2.0) if octaves else (1.0,)
    return any(abs(found_bpm - factor * asked_bpm) <= WITHIN * factor * asked_bpm for factor in factors)


def _scale(key: tuple[int, bool]) -> int:
    """The major key with the same notes."""
    return (key[0] + 3) % 12 if key[1] else key[0]
