"""The notes of a clip, for a model that follows them: a state per MIDI pitch and codec frame.

Transcribed by basic-pitch's model (`data_prep.notes`), which hears any instrument and knows none: what it takes for a
note in voices and drums is in it too. A clip without notes says so, frame by frame: that is not the same as unknown.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int8

from data_prep.condition_sources.port import ConditionSource
from data_prep.lm_spec import ConditionKind
from data_prep.note_slots import note_slots
from data_prep.notes.events import note_events
from data_prep.notes.model import RATE_HZ, NotesModel, file_fingerprint
from data_prep.stems import MIX

NOTES = "notes"


@dataclass(frozen=True)
class NotesFrom:
    """The file of the model that transcribes."""

    model: Path


class TranscribedNotes(ConditionSource):
    """Beginning, going on, silent: per pitch and frame."""

    kind = NOTES
    version = 1
    usual = MIX

    def sample_rate_hz(self, kind: ConditionKind) -> int:
        """22,050 Hz, as the model hears."""
        return RATE_HZ

    def depends_on(self, kind: ConditionKind) -> dict[str, Any]:
        """How often notes stand, and the model, where it is known: the base that learns does not depend on it."""
        if kind.made_with is None:
            return {"rate_hz": kind.rate_hz}
        return {"rate_hz": kind.rate_hz, "model": file_fingerprint(_file(kind))}

    def values(self, audio: Float[np.ndarray, " N"], kind: ConditionKind) -> Int8[np.ndarray, "n 128"]:
        """States [n, 128], one row per frame and one more, as for the style."""
        rate = kind.rate_hz or 1.0
        n_frames = int(np.ceil(len(audio) / RATE_HZ * rate)) + 1
        return note_slots(note_events(_loaded(_file(kind)).listen(audio)), n_frames, rate)


def _file(kind: ConditionKind) -> Path:
    assert isinstance(kind.made_with, NotesFrom)
    return kind.made_with.model


@lru_cache(maxsize=1)
def _loaded(path: Path) -> NotesModel:
    return NotesModel.load(path)
