"""The beats of a clip: a click track, frame by frame, that a base without one learns to keep to."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from data_prep.beat_grid import RATE_HZ, SILENT_DB, WIDTH, tracked
from data_prep.condition_sources.port import ConditionSource
from data_prep.lm_spec import ConditionKind
from data_prep.stems import MIX

BEAT = "beat"


@dataclass(frozen=True)
class ClickShape:
    """How often a click track has an entry."""

    frame_rate: float


class BeatsOfSound(ConditionSource):
    """Beats that librosa's tracker finds."""

    kind = BEAT
    version = 1
    usual = MIX

    def sample_rate_hz(self, kind: ConditionKind) -> int:
        """22.05 kHz, as the tracker reads."""
        return RATE_HZ

    def depends_on(self, kind: ConditionKind) -> dict[str, Any]:
        """The entries' rate, and what counts as silence."""
        return {"frame_rate": frame_rate_of(kind), "silent_db": SILENT_DB, "width": WIDTH}

    def values(self, audio: Float[np.ndarray, " N"], kind: ConditionKind) -> Float[np.ndarray, "n width"] | None:
        """Four numbers per codec frame (`beat_grid.WIDTH`)."""
        beats, rate = tracked(audio), frame_rate_of(kind)
        return None if beats is None else beats.features(1 + round(len(audio) / RATE_HZ * rate), rate)


def frame_rate_of(kind: ConditionKind) -> float:
    """Entries per second."""
    assert isinstance(kind.made_with, ClickShape)
    return kind.made_with.frame_rate
