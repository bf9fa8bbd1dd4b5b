"""The learning rate as a function of the step alone, so that there is no scheduler state to save or to lose."""

import math

from configs.train import OptimSettings, TrainSettings

WARMUP_SHARE = 0.2
"""Largest part of a run that warm-up may take: a short run must not end before it has reached its peak."""


def jump(before: TrainSettings, now: TrainSettings, n_clips: int, per_step: int, done: int) -> str:
    """What to say where a run goes on towards another number of steps; nothing where that changes nothing.

    The learning rate follows the share of the run that is done, so it jumps when the run becomes longer or shorter.
    """
    was, total = total_steps(before, n_clips, per_step), total_steps(now, n_clips, per_step)
    if was == total:
        return ""
    if done >= total:
        return f"steps: {was} → {total}, and {done} are done already: nothing is left to train"
    old, new = (factor(done, steps, now.optim) for steps in (was, total))
    words = f"steps: {was} → {total}"
    if abs(old - new) < 0.01:
        return words
    return f"{words}; with them the learning rate jumps at step {done + 1} from {old:.0%} to {new:.0%} of its peak"


def total_steps(settings: TrainSettings, n_clips: int, per_step: int) -> int:
    """How many steps a run has: as many as asked for, or as the epochs take."""
    return settings.steps or max(1, math.ceil(settings.epochs * n_clips / per_step))


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
