"""Memory of a Magenta RealTime 2 training step: the closed form against the real code on the meta device."""

from dataclasses import replace

import pytest
from test_memory import within

from adapters.family.magenta_rt2.format import FORMAT
from adapters.family.magenta_rt2.memory import groups_of
from adapters.family.magenta_rt2.spec import BASE, SMALL, lm_spec
from adapters.family.memory import StepPlan, memory_of, trainable
from finetune.memory.predict import GIB, predict
from finetune.memory.simulate import simulate

SHORT = lm_spec(replace(SMALL, temporal=replace(SMALL.temporal, layers=3)))
EVERYTHING = ("attention", "ffn", "depth", "heads", "depth_adapter", "style_projection")


@pytest.mark.parametrize(
    "plan",
    [
        StepPlan(SHORT, "bf16", "bf16", 0, 1, 120, targets=("attention", "ffn", "depth")),
        StepPlan(SHORT, "bf16", "bf16", 3, 2, 60, targets=EVERYTHING),
        StepPlan(SHORT, "fp32", "fp32", 0, 2, 50, targets=("attention", "ffn")),
        StepPlan(SHORT, "bf16", "bf16", 0, 1, 120, targets=("cross_attention",)),
        StepPlan(SHORT, "nf4", "bf16", 3, 1, 120, targets=("attention", "ffn", "text_projection")),
    ],
    ids=["all layers kept", "all recomputed", "fp32", "cross-attention", "nf4"],
)
def test_prediction_agrees_with_simulation(plan: StepPlan) -> None:
    predicted, simulated = predict(plan), simulate(plan)
    within(predicted.held, simulated.held, 0.03)
    within(predicted.kept, simulated.kept)
    within(predicted.peak - predicted.held, simulated.peak - simulated.held)


def test_what_the_true_sizes_need() -> None:
    """The parts of docs/magenta-realtime.md's table that decide whether a card is large enough."""
    small, base = (FORMAT.published(f"google/magenta-realtime-2{name}") for name in ("", "/mrt2_base"))
    assert small == lm_spec(SMALL) and base == lm_spec(BASE) and FORMAT.published("google/magenta-realtime") is None
    assert small is not None and base is not None
    assert memory_of(base).weight_bytes(StepPlan(base, "bf16")) == 2 * BASE.n_parameters
    for spec, weights, sec, gb in ((small, "bf16", 30, 4), (base, "bf16", 10, 10), (base, "nf4", 10, 6)):
        plan = StepPlan(spec, weights, "bf16", 0, 1, sec * 25)  # pyright: ignore[reportArgumentType]
        assert predict(plan).of_the_card < 0.9 * gb * 1e9
    assert trainable(StepPlan(small)) == trainable(StepPlan(small, targets=tuple(groups_of(StepPlan(small).targets))))
    kept, recomputed = (predict(StepPlan(base, checkpointed=n, frames=250)).peak for n in (0, 20))
    assert recomputed < kept < 10 * GIB
