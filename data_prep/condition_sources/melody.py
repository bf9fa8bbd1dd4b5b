"""The melody of a clip: its loudest pitch class over time, read from what is left without drums and bass."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data_prep.chroma import PITCHED, SILENT_DB, chroma, energies, has_melody
from data_prep.chroma_shape import ChromaShape
from data_prep.condition_sources.port import ConditionSource
from data_prep.lm_spec import ConditionKind
from data_prep.stems import REST

MELODY = "melody"
RESTS_DB = -50.0
"""Energy of a frame, relative to the loudest, below which the melody rests."""


class Melody(ConditionSource):
    """Chroma as the base's own files describe it. Silence and unpitched sounds have no melody."""

    kind = MELODY
    version = 1
    usual = REST

    def sample_rate_hz(self, kind: ConditionKind) -> int:
        """What the base's preprocessor files say."""
        return shape_of(kind).sample_rate_hz

    def depends_on(self, kind: ConditionKind) -> dict[str, Any]:
        """The transform's numbers, and what counts as no melody."""
        return {**asdict(shape_of(kind)), "silent_db": SILENT_DB, "pitched": PITCHED}

    def values(self, audio: Float[np.ndarray, " N"], kind: ConditionKind) -> Float[np.ndarray, "n width"] | None:
        """One-hot rows, 7.8 a second for MusicGen-melody."""
        shape, samples = shape_of(kind), torch.from_numpy(np.ascontiguousarray(audio, np.float32))
        return melody_rows(samples, kind).numpy() if has_melody(samples, shape) else None


def melody_rows(audio: Float[Tensor, " N"], kind: ConditionKind) -> Float[Tensor, "n width"]:
    """The loudest pitch class of each frame, one-hot.

    A silent frame names the first class for a base that was trained so, and none where an adapter learns the melody.
    """
    shape = shape_of(kind)
    rows = chroma(audio, shape)
    if kind.enters != "frames":
        return rows
    energy = energies(audio, shape).sum(dim=1)
    return rows * (energy > energy.amax() * 10 ** (RESTS_DB / 10))[:, None]


def shape_of(kind: ConditionKind) -> ChromaShape:
    """How this base's chroma is made."""
    assert isinstance(kind.made_with, ChromaShape)
    return kind.made_with
