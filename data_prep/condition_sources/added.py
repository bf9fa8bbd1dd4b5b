"""Conditions per frame that an adapter can teach a base which follows text alone: how their values are made for it."""

from data_prep.beat_grid import WIDTH as CLICK_WIDTH
from data_prep.chroma_shape import ChromaShape
from data_prep.condition_sources.beat import BEAT, ClickShape
from data_prep.condition_sources.melody import MELODY
from data_prep.context_names import CONTEXT
from data_prep.lm_spec import ConditionKind, LMSpec

ADDED = (CONTEXT, MELODY, BEAT)
"""Their names."""
TRANSFORM_SEC = 0.512
"""Length of a melody's transforms, MusicGen-melody's own (16,384 samples at 32 kHz)."""


def added_kinds(spec: LMSpec) -> dict[str, ConditionKind]:
    """By name, what an adapter can add to this base's conditions: an entry for each codec frame.

    Empty for a family whose input cannot be added to. A kind that the base follows by itself is left out.
    """
    if not spec.adds_frames:
        return {}
    n_fft = 1 << round(TRANSFORM_SEC * spec.sample_rate_hz).bit_length() - 1
    shape = ChromaShape(spec.sample_rate_hz, n_fft, spec.hop_samples)
    kinds = [
        ConditionKind(CONTEXT, spec.n_codebooks, per="frame", values="ids", enters="frames"),
        ConditionKind(MELODY, shape.n_chroma, per="frame", enters="frames", made_with=shape),
        ConditionKind(BEAT, CLICK_WIDTH, per="frame", enters="frames", made_with=ClickShape(spec.frame_rate)),
    ]
    return {kind.name: kind for kind in kinds if not spec.has(kind.name)}
