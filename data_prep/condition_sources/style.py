"""The style of a clip's own sound, for a model that follows style tokens: one row of tokens per codec frame.

The style model hears stretches of 10 s; every frame has the tokens of the stretch that it lies in.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int16

from data_prep.condition_sources.port import ConditionSource
from data_prep.lm_spec import ConditionKind
from data_prep.stems import MIX
from data_prep.style_tokens import RATE_HZ, STRETCH_SEC, StyleModel

STYLE = "style"


@dataclass(frozen=True)
class StyleFrom:
    """Where the base is whose style model hears the clips."""

    folder: Path


class StyleOfSound(ConditionSource):
    """Style tokens of the audio itself, where a caption says what a person would."""

    kind = STYLE
    version = 1
    usual = MIX

    def sample_rate_hz(self, kind: ConditionKind) -> int:
        """16 kHz, as the style model hears."""
        return RATE_HZ

    def depends_on(self, kind: ConditionKind) -> dict[str, Any]:
        """The style model, and how often its tokens stand."""
        return {"style_model": _model(kind).fingerprint, "rate_hz": kind.rate_hz}

    def values(self, audio: Float[np.ndarray, " N"], kind: ConditionKind) -> Int16[np.ndarray, "n width"] | None:
        """Tokens [n, 12], one row per frame and one more: the codec may count a frame that 16 kHz rounds away."""
        model, rate = _model(kind), kind.rate_hz or 1.0
        tokens = model.tokens(model.embed_sound(audio[None], RATE_HZ))  # [stretches, 12]
        if not len(tokens):
            return None
        frames = np.arange(int(np.ceil(len(audio) / RATE_HZ * rate)) + 1)
        stretch = np.minimum(frames // round(STRETCH_SEC * rate), len(tokens) - 1)
        return tokens[stretch].astype(np.int16)


def _model(kind: ConditionKind) -> StyleModel:
    assert isinstance(kind.made_with, StyleFrom)
    return _loaded(kind.made_with.folder)


@lru_cache(maxsize=2)
def _loaded(folder: Path) -> StyleModel:
    from data_prep.magenta_rt2.files import find_files
    from data_prep.text_encoders.style import style_model

    return style_model(find_files(folder))
