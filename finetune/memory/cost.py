"""How long a training step takes, roughly: enough to rank plans that fit, not to promise a duration.

Counted: the matrix products of forward, backward and recomputation, the weights that are dequantised for each, and what
the processor takes to ask for a layer's kernels, which is what small micro-batches pay for (`finetune.memory.host_cost`
measures it). Not counted: loading, evaluation, previews, and
what a kernel loses on its own shape.
"""

from dataclasses import dataclass

from adapters.family.memory import StepPlan, learning, memory_of


@dataclass(frozen=True)
class Machine:
    """Rates of the hardware. The first two are assumed, for a mid-range consumer GPU: ranking hardly needs them."""

    flops: float = 40e12
    bytes_per_sec: float = 400e9
    layer_sec: float = 2e-3
    """What the processor takes for a layer's forward and backward pass, however small the batch is."""
    recompute_sec: float = 2e-3
    """What it takes more for a layer that is recomputed."""
    partly_sec: float = 0.4e-3
    """What it takes more for a layer of which norms and activation are recomputed."""


SHORT_ROWS = 90
"""Assumed: rows that a micro-batch seems to have on top, since short products run below the full rate. Four clips at
once were seen to take 0.89 of the time per clip of one at a time."""
ATTENTION_BACKWARD = 2.5
"""Products of a flash backward over those of its forward: five against two (Dao et al. 2022, arXiv:2205.14135)."""


def step_flops(plan: StepPlan) -> float:
    """Of one micro-batch: forward, backward to the activations and the adapter, and recomputation."""
    spec, memory = plan.spec, memory_of(plan.spec)
    (linear, attention), adapter = memory.block_flops(plan), memory.adapter_flops(plan)
    head = 2 * plan.batch_size * plan.steps * spec.n_codebooks * spec.card * spec.hidden
    frozen = linear * 2 + attention * (1 + ATTENTION_BACKWARD)
    total = spec.layers * frozen + 2 * head + 3 * adapter
    return total + plan.checkpointed * (linear + attention + adapter / spec.layers)


def step_sec(plan: StepPlan, machine: Machine | None = None) -> float:
    """Seconds of one micro-batch."""
    machine = machine or Machine()
    layers = plan.spec.layers
    passes = 2 + plan.checkpointed / layers
    dequantised = 0.0
    if plan.quantised:
        packed = 1.0 if plan.weights == "int8" else 0.5
        weights = layers * memory_of(plan.spec).block_weights(plan)
        dequantised = passes * weights * (packed + 2 * plan.bytes_per_value) / machine.bytes_per_sec
    partly = min(plan.partly, layers - plan.checkpointed)
    host = layers * machine.layer_sec + plan.checkpointed * machine.recompute_sec + partly * machine.partly_sec
    again = partly * 2 * memory_of(plan.spec).cheap_bytes(plan)[0] / machine.bytes_per_sec  # read one, write one
    short = 1 + SHORT_ROWS / (plan.batch_size * plan.steps)
    return max(step_flops(plan) * short / machine.flops + dequantised + again, host)


def audio_sec_per_sec(plan: StepPlan, accumulation: int, machine: Machine | None = None) -> float:
    """Seconds of music learnt from per second of training, the optimizer's step included."""
    machine = machine or Machine()
    optimizer = 40 * learning(plan) / machine.bytes_per_sec  # weight, gradient and moments, read and written
    audio = plan.batch_size * accumulation * plan.frames / plan.spec.frame_rate
    return audio / (accumulation * step_sec(plan, machine) + optimizer)
