"""Running out of memory in a step is no reason to end a run: the same step again in smaller pieces.

What the failed attempt left in the gradients is thrown away whole, so nothing is counted twice, and the draws of a step
are known, so nothing is lost: the gradient is the same up to rounding. Several processes cannot do this, because the
others would wait for the one that starts again; there the run ends in all of them with advice, and --resume goes on.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from adapters.device_memory import let_go
from adapters.family.recompute import enable_checkpointing
from configs.errors import UserError

if TYPE_CHECKING:
    from finetune.batches import Draw
    from finetune.step import Gradients, Learner

Accumulate = Callable[["Learner", Sequence["Draw"], int, Callable[[], bool]], "Gradients | None"]


def accumulate_or_shrink(
    accumulate: Accumulate,
    learner: "Learner",
    draws: Sequence["Draw"],
    step: int,
    stop: Callable[[], bool],
    say: Callable[[str], None],
) -> "Gradients | None":
    """`accumulate`, again with a smaller micro-batch each time memory runs out; the total batch stays.

    Raises:
        UserError: one clip at a time with every layer recomputed is still too much, or there are several processes.
    """
    while True:
        try:
            return accumulate(learner, draws, step, stop)
        except torch.OutOfMemoryError as error:
            problem = str(error).splitlines()[0]
        # Outside the except block: the traceback no longer holds the activations of the failed attempt.
        for weight in learner.weights:
            weight.grad = None
        let_go()
        say(f"step {step + 1}: out of memory; {_shrink(learner, problem)}. The total batch stays, nothing is lost.")


def _shrink(learner: "Learner", problem: str) -> str:
    """Make the next attempt smaller, and say how."""
    if learner.accelerator.num_processes > 1:
        error = _too_small(problem, "Run again with --resume and a smaller --batch_size, and a larger --accumulation.")
        raise error if learner.alarm is None else learner.alarm.raise_with_others(error)
    if learner.batch_size > 1:
        learner.batch_size //= 2
        return f"micro-batches are {learner.batch_size} of the longest clips from here on"
    if learner.checkpointed < learner.lm.spec.layers:
        learner.checkpointed = learner.lm.spec.layers
        enable_checkpointing(learner.lm, "all")
        return "every layer is recomputed from here on"
    raise _too_small(problem, "Use --base_weights nf4, shorter clips (--max_clip_sec 10), or a smaller base.")


def _too_small(problem: str, fix: str) -> UserError:
    return UserError("The memory of this device is too small for this run.", where=problem, fix=fix)
