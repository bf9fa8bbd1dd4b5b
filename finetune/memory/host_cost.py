"""What the processor takes to ask for a layer's kernels, measured on this machine in about a second.

A GPU works through small micro-batches faster than Python can ask for them: then this is what a step costs. It is
measured on a narrow decoder of the same family with so few rows that the kernels themselves take next to nothing, on
the GPU where there is one, else on the processor, where asking for an operation costs about as much. The smallest of
several runs counts: whatever else the machine does only adds.
"""

import time
from collections.abc import Callable

import torch

from adapters.family.lm import LM
from adapters.family.memory import StepPlan, memory_of
from adapters.family.recompute import enable_checkpointing
from data_prep.lm_spec import LMSpec
from finetune.memory.cost import Machine
from finetune.memory.simulate import batch, random_lm

LAYERS = 6
RUNS = 5
"""After one that is thrown away."""


def machine_here(spec: LMSpec, device: str) -> Machine:
    """A machine whose host cost is measured with this family's decoder; assumed where the family has no narrow one."""
    narrow = memory_of(spec).narrow(spec, LAYERS)
    if narrow is None:
        return Machine()
    plan = StepPlan(narrow, "fp32", "fp32", frames=8, text_tokens=4, rank=2)
    with torch.random.fork_rng(devices=[]):
        lm, _ = random_lm(plan, device)
    inputs, _, conditions = batch(plan, device)

    def step() -> None:
        lm(inputs, conditions).sum().backward()

    plain, whole, partly = (_seconds(lm, *layers, step) for layers in ((0, 0), (LAYERS, 0), (0, LAYERS)))
    more = [max(spent - plain, 0.0) / LAYERS for spent in (whole, partly)]
    return Machine(layer_sec=plain / LAYERS, recompute_sec=more[0], partly_sec=more[1])


def _seconds(lm: LM, recomputed: int, partly: int, step: Callable[[], None]) -> float:
    enable_checkpointing(lm, recomputed, partly)
    spent = []
    for _ in range(1 + RUNS):
        begun = time.perf_counter()
        step()
        spent.append(time.perf_counter() - begun)
        lm.zero_grad(set_to_none=True)
    return min(spent[1:])
