"""Memory of a melody model's training step: the closed form against the real code on the meta device."""

from dataclasses import replace

import pytest

from adapters.family.memory import StepPlan
from adapters.family.musicgen_melody.format import spec_of_sizes
from finetune.memory.predict import GIB, predict
from finetune.memory.simulate import simulate

MEDIUM = spec_of_sizes(1536, 48, 24, 6144)
LARGE = spec_of_sizes(2048, 48, 32, 8192)
STEREO = spec_of_sizes(1536, 48, 24, 6144, channels=2)
ALL = ("attention", "ffn", "text_projection", "melody_projection")
TRUE = [
    StepPlan(replace(MEDIUM, layers=4), checkpointed=4, batch_size=2, targets=ALL),
    StepPlan(replace(MEDIUM, layers=4), checkpointed=0, batch_size=1, frames=500, targets=ALL),
    StepPlan(replace(MEDIUM, layers=6), "nf4", checkpointed=4, batch_size=4),
    StepPlan(replace(LARGE, layers=4), checkpointed=2, batch_size=2, targets=("q", "v")),
    StepPlan(replace(STEREO, layers=3), "int8", checkpointed=3, batch_size=2, frames=750),
]


def within(got: float, want: float, share: float = 0.1) -> None:
    assert abs(got / want - 1) <= share, f"{got / GIB:.4f} GiB, expected {want / GIB:.4f} within {share:.0%}"


@pytest.mark.parametrize("plan", TRUE, ids=lambda p: f"{p.spec.hidden}-{p.weights}-{p.checkpointed}-{p.batch_size}")
def test_prediction_agrees_with_simulation(plan: StepPlan) -> None:
    simulated, predicted = simulate(plan), predict(plan)
    within(predicted.held, simulated.held, 0.03)
    within(predicted.peak, simulated.peak)
    within(predicted.kept, simulated.kept)


def test_the_headline_job_fits_10_gb() -> None:
    """1.5 B in nf4, recomputed, one clip of 30 s, as `plan` would choose it for such a card."""
    plan = StepPlan(MEDIUM, "nf4", checkpointed=48, batch_size=1)
    assert predict(plan).of_the_card < 10e9
    assert predict(StepPlan(MEDIUM, "bf16", checkpointed=48, batch_size=1)).of_the_card < 10e9
