"""How long a training step takes, roughly: enough to rank setups that fit, not to promise a duration.

Counted: the matrix products of forward, backward and recomputation, the weights that are dequantised for each, and a
fixed cost per layer call, which is what small micro-batches pay for. Not counted: loading, evaluation, previews, and
what a kernel loses on its own shape.
"""

from dataclasses import dataclass

from finetune.memory.setup import FRAMES_PER_SEC, Setup, roles, trainable


@dataclass(frozen=True)
class Machine:
    """Rates of the hardware. The defaults are assumed, for a mid-range consumer GPU; ranking depends little on them."""

    flops: float = 40e12
    bytes_per_sec: float = 400e9
    launch_sec: float = 5e-6
    measured: bool = False


LAUNCHES = 70
"""Kernels per decoder layer and pass, counted on the lean decoder (aten operations that compute, forward)."""
SHORT_ROWS = 90
"""Assumed: rows that a micro-batch seems to have on top, since short products run below the full rate. Four clips at
once were seen to take 0.89 of the time per clip of one at a time."""
ATTENTION_BACKWARD = 2.5
"""Products of a flash backward over those of its forward: five against two (Dao et al. 2022, arXiv:2205.14135)."""


def step_flops(setup: Setup) -> float:
    """Of one micro-batch: forward, backward to the activations and the adapter, and recomputation."""
    shape = setup.shape
    linear, attention, adapter = linear_flops(setup), attention_flops(setup), _adapter_forward(setup)
    head = 2 * setup.batch_size * setup.steps * shape.codebooks * shape.card * shape.hidden
    frozen = linear * 2 + attention * (1 + ATTENTION_BACKWARD)
    total = shape.layers * frozen + 2 * head + 3 * adapter
    return total + setup.checkpointed * (linear + attention + adapter / shape.layers)


def step_sec(setup: Setup, machine: Machine | None = None) -> float:
    """Seconds of one micro-batch."""
    machine = machine or Machine()
    shape = setup.shape
    passes = 2 + setup.checkpointed / shape.layers
    dequantised = 0.0
    if setup.weights in ("int8", "nf4"):
        weights = shape.layers * (8 * shape.hidden**2 + 2 * shape.hidden * shape.ffn)
        packed = 1.0 if setup.weights == "int8" else 0.5
        dequantised = passes * weights * (packed + 2 * setup.bytes_per_value) / machine.bytes_per_sec
    launches = (passes + 1) * shape.layers * LAUNCHES * machine.launch_sec  # a backward launches about two for one
    short = 1 + SHORT_ROWS / (setup.batch_size * setup.steps)
    return max(step_flops(setup) * short / machine.flops + dequantised, launches)


def audio_sec_per_sec(setup: Setup, accumulation: int, machine: Machine | None = None) -> float:
    """Seconds of music learnt from per second of training, the optimizer's step included."""
    machine = machine or Machine()
    optimizer = 40 * trainable(setup) / machine.bytes_per_sec  # weight, gradient and moments, read and written
    audio = setup.batch_size * accumulation * setup.frames / FRAMES_PER_SEC
    return audio / (accumulation * step_sec(setup, machine) + optimizer)


def linear_flops(setup: Setup) -> float:
    """Products with the frozen weights of one decoder layer, forward; cross-attention reads the text once per layer."""
    D, F = setup.shape.hidden, setup.shape.ffn
    rows, text_rows = setup.batch_size * setup.steps, setup.batch_size * setup.text_tokens
    return 2.0 * rows * (6 * D * D + 2 * D * F) + 2 * text_rows * 2 * D * D


def attention_flops(setup: Setup) -> float:
    """Scores and sums of one decoder layer, forward; self-attention is causal, so half of 4 S² D."""
    D, S = setup.shape.hidden, setup.steps
    return setup.batch_size * (2.0 * S * S * D + 4 * S * setup.text_tokens * D)


def _adapter_forward(setup: Setup) -> float:
    """What reads the text (cross-attention's k and v, the projection) has few rows and is left out."""
    shape, has = setup.shape, roles(setup.targets)
    square = len(
        [role for role in has if role[0] in ("self", "cross") and role not in (("cross", "k"), ("cross", "v"))]
    )
    widths = square * 2 * shape.hidden + (2 * (shape.hidden + shape.ffn) if ("ffn", "") in has else 0)
    return 2.0 * setup.batch_size * setup.steps * shape.layers * setup.rank * widths
