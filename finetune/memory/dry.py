"""A measured step before the first one: does what was predicted hold on this device, with the longest batch?

It computes the gradients of real clips and throws them away; weights and optimizer are not touched. The optimizer's
state, which is made in its first step, is added as a number. On a GPU the highest point of all that came before
(loading, held-out loss, previews, prior pieces) is told as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from finetune.memory.live import LiveBytes
from finetune.memory.simulate import held_tensors


@dataclass(frozen=True)
class Measured:
    """Bytes at the highest point: live ones on a CPU, reserved ones on a GPU. `before`: until the step, GPU only."""

    peak: int
    before: int = 0


def measure(
    step: Callable[[], object], model: nn.Module, weights: Sequence[nn.Parameter], missing_bytes: int = 0
) -> Measured | None:
    """Run `step` and measure; None when memory ran out. `missing_bytes` are for what does not exist yet.

    The gradients it leaves are counted once more, since in every later micro-batch those of earlier ones are there, and
    thrown away.
    """
    device = next(model.parameters()).device
    try:
        peak, before = _on_gpu(step, device) if device.type == "cuda" else (_elsewhere(step, model), 0)
        gradients = sum(weight.grad.nbytes for weight in weights if weight.grad is not None)
        return Measured(peak + gradients + missing_bytes, before)
    except torch.OutOfMemoryError:
        return None
    finally:
        for weight in weights:
            weight.grad = None
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _on_gpu(step: Callable[[], object], device: torch.device) -> tuple[int, int]:
    before = torch.cuda.max_memory_reserved(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_reserved(device), before


def _elsewhere(step: Callable[[], object], model: nn.Module) -> int:
    live = LiveBytes()
    live.hold(*held_tensors(model))
    with live:
        step()
    return live.peak
