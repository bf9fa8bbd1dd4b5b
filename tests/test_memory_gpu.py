"""What a GPU really reserves, against prediction and cap: `pytest -m gpu tests/test_memory_gpu.py`."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from adapters.conditions import Conditions
from adapters.family.memory import StepPlan
from adapters.family.musicgen.format import spec_of_sizes
from benchmarks.train_step import Ours, step_inputs
from finetune.lean_loss import codebook_sums
from finetune.memory.auto import limit_process
from finetune.memory.dry import measure
from finetune.memory.fit import Cap, choose, options
from finetune.memory.optimizer_state import state_bytes
from finetune.memory.predict import GIB, predict

SMALL = spec_of_sizes(1024, 24, 16, 4096)
MEDIUM = spec_of_sizes(1536, 48, 24, 6144)
GRID = [
    StepPlan(SMALL, checkpointed=24, batch_size=8),
    StepPlan(SMALL, checkpointed=0, batch_size=2),
    StepPlan(MEDIUM, checkpointed=24, batch_size=2),
    StepPlan(MEDIUM, "nf4", checkpointed=48, batch_size=4),
    StepPlan(MEDIUM, "int8", checkpointed=48, batch_size=2),
]

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def whole_card() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def reserved(plan: StepPlan) -> int | None:
    """Of a step, with the optimizer's state and the gradients of earlier micro-batches; None if too much."""
    ours, inputs = Ours(plan, "cuda"), step_inputs(plan, "cuda")
    there = state_bytes(plan) + sum(weight.nbytes for weight in ours.weights)
    found = measure(lambda: gradients(ours, *inputs), ours.lm, [], there)
    return None if found is None else found.peak


def gradients(ours: Ours, inputs: Tensor, labels: Tensor, conditions: Conditions) -> None:
    codebook_sums(ours.lm(inputs, conditions), labels).sum().backward()
    for weight in ours.weights:
        weight.grad = None


@pytest.mark.parametrize("plan", GRID, ids=lambda s: f"{s.spec.hidden}-{s.weights}-{s.checkpointed}-{s.batch_size}")
def test_the_prediction_holds_within_a_tenth(plan: StepPlan):
    assert reserved(plan) == pytest.approx(predict(plan).reserved, rel=0.1)


@pytest.mark.parametrize("gib", [6, 8, 10])
def test_what_was_fitted_runs_under_a_hard_cap(gib: int):
    cap = Cap(gib * GIB)
    plan = choose(options(StepPlan(MEDIUM), 8, cap, ["bf16", "nf4"]), cap).plan
    limit_process(cap)
    peak = reserved(plan)
    assert peak is not None and peak <= cap.tensors


def test_a_cap_that_is_too_small_is_an_out_of_memory_and_no_crash():
    limit_process(Cap(2 * GIB))
    assert reserved(replace(StepPlan(SMALL), batch_size=8)) is None
