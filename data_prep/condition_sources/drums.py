"""Whether drums play, for a model that follows it: 0 or 1 per codec frame (`data_prep.notes.drums`)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int8

from data_prep.condition_sources.port import ConditionSource
from data_prep.lm_spec import ConditionKind
from data_prep.notes.drums import drum_hits, drum_slots
from data_prep.onsets import RATE_HZ
from data_prep.stems import DRUMS as STEM
from data_prep.stems import INSTRUMENTAL, MIX, Selection, parse_selection

DRUMS = "drums"


@dataclass(frozen=True)
class DrumsFrom:
    """Whether hits are read from mixes, where other instruments begin as well."""

    of_mix: bool


class DrumsNear(ConditionSource):
    """Hits of the drum stem, or of a mix by what rises far up in the spectrum."""

    kind = DRUMS
    version = 1
    usual = MIX

    def selection(self, asked: str, version: str, separator: str) -> Selection | None:
        """`mix`: the clip as it is. `drums`: the stem, of clips that it is a part of; others have no value."""
        own, wanted = parse_selection(version), parse_selection(asked)
        if wanted.name == MIX:
            return own
        has_drums = version in (MIX, INSTRUMENTAL) or STEM in own.parts
        return wanted if has_drums or wanted.name != STEM else None

    def sample_rate_hz(self, kind: ConditionKind) -> int:
        """22,050 Hz."""
        return RATE_HZ

    def depends_on(self, kind: ConditionKind) -> dict[str, Any]:
        """How often it stands, and of what it was read, where that is known."""
        known = {} if kind.made_with is None else {"of_mix": _is_of_mix(kind)}
        return {"rate_hz": kind.rate_hz, **known}

    def values(self, audio: Float[np.ndarray, " N"], kind: ConditionKind) -> Int8[np.ndarray, "n 1"]:
        """[n, 1], one row per frame and one more, as for the style."""
        rate = kind.rate_hz or 1.0
        n_frames = int(np.ceil(len(audio) / RATE_HZ * rate)) + 1
        return drum_slots(drum_hits(audio, of_mix=_is_of_mix(kind)), n_frames, rate)


def _is_of_mix(kind: ConditionKind) -> bool:
    assert isinstance(kind.made_with, DrumsFrom)
    return kind.made_with.of_mix
