"""The learning rate as a function of the step alone, so that there is no scheduler state to save or to lose."""

import math

from configs.train import OptimSettings

WARMUP_SHARE = 0.2
"""Largest part of a run that warm-up may take: a short run must not end before it has reached its peak."""


def factor(step: int, total_steps: int, optim: OptimSettings) -> float:
    """What the peak learning rate is multiplied by at `step` (0 is the first): in (0, 1], and 1 when warm-up ends."""
    warmup = min(optim.warmup_steps, int(total_steps * WARMUP_SHARE))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if optim.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    if optim.schedule == "linear":
        return 1.0 - progress
    return 0.5 * (1.0 + math.cos(math.pi * progress))
