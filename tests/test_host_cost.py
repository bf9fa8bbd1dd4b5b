"""What the processor takes for a layer is measured on this machine, and the planner heeds it."""

import time

import pytest
import torch

from adapters.family.memory import StepPlan
from adapters.family.musicgen.format import spec_of_sizes
from adapters.family.recompute import enable_checkpointing
from finetune.memory.cost import Machine, step_sec
from finetune.memory.host_cost import machine_here
from finetune.memory.simulate import batch, random_lm

MEDIUM = spec_of_sizes(1536, 48, 24, 6144)


@pytest.fixture(scope="module")
def here() -> Machine:
    return machine_here(MEDIUM, "cpu")


def test_it_is_what_a_small_decoder_really_takes(here: Machine) -> None:
    """Of another width, depth and length, recomputed in part."""
    plan = StepPlan(spec_of_sizes(64, 10, 4, 256, card=64), "fp32", "fp32", frames=12, text_tokens=4, rank=4)
    lm, _ = random_lm(plan, "cpu")
    inputs, _, conditions = batch(plan, "cpu")
    enable_checkpointing(lm, 5)
    spent = []
    for _ in range(6):
        begun = time.perf_counter()
        lm(inputs, conditions).sum().backward()
        spent.append(time.perf_counter() - begun)
    expected = 10 * here.layer_sec + 5 * here.recompute_sec
    assert 0.4 < min(spent) / expected < 2.5  # beside other processes


def test_recomputing_costs_more(here: Machine) -> None:
    assert here.layer_sec > 1e-4
    assert 0.2 < here.recompute_sec / here.layer_sec < 5


def test_no_generator_is_moved() -> None:
    before = torch.get_rng_state()
    machine_here(MEDIUM, "cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_slow_host_makes_small_batches_slow() -> None:
    plan = StepPlan(MEDIUM, batch_size=1, frames=100)
    quick, slow = Machine(layer_sec=1e-5, recompute_sec=1e-5), Machine(layer_sec=4e-3, recompute_sec=3e-3)
    assert step_sec(plan, slow) == pytest.approx(48 * 4e-3) > 3 * step_sec(plan, quick)
    recomputed = StepPlan(MEDIUM, batch_size=1, frames=100, checkpointed=48)
    assert step_sec(recomputed, slow) == pytest.approx(48 * 7e-3)
    large = StepPlan(MEDIUM, batch_size=8)
    assert step_sec(large, slow) == step_sec(large, quick)  # the GPU is the slower one there
