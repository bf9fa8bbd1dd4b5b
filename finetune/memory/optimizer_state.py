"""How many bytes each optimizer keeps per learning weight, on the device."""

from adapters.family.memory import StepPlan, learning, memory_of

MIN_8BIT_SIZE = 4096
"""bitsandbytes keeps 32-bit state for smaller tensors (`min_8bit_size` of its 8-bit optimizers)."""
BLOCK = 256
"""Weights that share one scale in bitsandbytes' 8-bit state (blockwise quantisation of its optimizers)."""
MIN_PAGED_SIZE = 100_000
"""bitsandbytes pages the state of tensors of this size or more (`get_state_buffer` of its optimizers)."""


def state_bytes(plan: StepPlan) -> int:
    """Of the whole adapter; a running average of the adapter (`ema_decay`) included."""
    average = 4 * learning(plan) if plan.ema else 0
    return average + _optimizer_bytes(plan)


def _optimizer_bytes(plan: StepPlan) -> int:
    if plan.optimizer == "adamw":
        return 8 * learning(plan)  # two fp32 moments
    if plan.optimizer == "prodigy":
        return 16 * learning(plan)  # two moments, the gradients' running sum, the weights at the start
    whole = memory_of(plan.spec).whole_tensors(plan)
    total = sum(_eight_bit(size, plan.optimizer == "paged_adamw8bit") for size in whole)
    for n_in, n_out, count in memory_of(plan.spec).linears(plan):
        paged = plan.optimizer == "paged_adamw8bit"
        total += count * sum(_eight_bit(plan.rank * width, paged) for width in (n_in, n_out))
    return total


def _eight_bit(size: int, paged: bool) -> int:
    """Two moments and their scales. Paged moments lie in memory that the driver moves between host and device."""
    if size < MIN_8BIT_SIZE:
        return 8 * size
    moments = 0 if paged and size >= MIN_PAGED_SIZE else size
    return 2 * (moments + 4 * -(-size // BLOCK))
