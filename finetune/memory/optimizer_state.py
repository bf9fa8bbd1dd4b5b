"""How many bytes each optimizer keeps per learning weight, on the device."""

from finetune.memory.setup import Setup, adapted, trainable

MIN_8BIT_SIZE = 4096
"""bitsandbytes keeps 32-bit state for smaller tensors (`min_8bit_size` of its 8-bit optimizers)."""
BLOCK = 256
"""Weights that share one scale in bitsandbytes' 8-bit state (blockwise quantisation of its optimizers)."""


def state_bytes(setup: Setup) -> int:
    """Of the whole adapter; a running average of the adapter (`ema_decay`) included."""
    average = 4 * trainable(setup) if setup.ema else 0
    return average + _optimizer_bytes(setup)


def _optimizer_bytes(setup: Setup) -> int:
    if setup.optimizer == "paged_adamw8bit":
        return 0  # in memory that the driver moves between host and device; PyTorch's allocator does not hold it
    if setup.optimizer == "adamw":
        return 8 * trainable(setup)  # two fp32 moments
    if setup.optimizer == "prodigy":
        return 16 * trainable(setup)  # two moments, the gradients' running sum, the weights at the start
    total = 0
    for n_in, n_out, count in adapted(setup.shape, setup.targets):
        total += count * sum(_eight_bit(setup.rank * width) for width in (n_in, n_out))
    return total


def _eight_bit(size: int) -> int:
    if size < MIN_8BIT_SIZE:
        return 8 * size
    return 2 * (size + 4 * -(-size // BLOCK))
