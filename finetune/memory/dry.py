"""A measured step before the first one: does what was predicted hold on this device, with the longest batch?

It computes the gradients of real clips and throws them away; weights and optimizer are not touched. The optimizer's
state, which is made in its first step, is added as a number. On a GPU the highest point of everything before it
counts as well: loading, held-out loss, previews.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from finetune.memory.live import LiveBytes
from finetune.memory.simulate import held_tensors


@dataclass(frozen=True)
class Measured:
    """Bytes at the highest point. On a GPU: what the allocator reserved."""

    peak: int


def measure(
    step: Callable[[], object], model: nn.Module, weights: Sequence[nn.Parameter], missing_bytes: int = 0
) -> Measured | None:
    """Run `step` and measure; None when memory ran out. `missing_bytes` are for what does not exist yet."""
    device = next(model.parameters()).device
    live = None if device.type == "cuda" else LiveBytes()
    if live is not None:
        live.hold(*held_tensors(model))
    try:
        with live or nullcontext():
            step()
    except torch.OutOfMemoryError:
        return None
    finally:
        grads = sum(weight.grad.nbytes for weight in weights if weight.grad is not None)
        for weight in weights:
            weight.grad = None
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    # Gradients of earlier micro-batches are there in every step but this one.
    if live is not None:
        return Measured(live.peak + grads + missing_bytes)
    return Measured(torch.cuda.max_memory_reserved(device) + grads + missing_bytes)
