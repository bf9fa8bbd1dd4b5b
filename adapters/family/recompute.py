"""Activation checkpointing: some of a model's blocks are computed again in the backward pass, not kept."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from adapters.family.lm import LM
from adapters.wrapped_forward import unwrap, wrap

NAME = "recompute"


def enable_checkpointing(lm: LM, blocks: int | Literal["all"] = "all") -> None:
    """Recompute the activations of the first `blocks` blocks in the backward pass; the others keep theirs.

    Each recomputed block costs one more forward pass of itself. Can be called again with another number; 0 undoes it.
    transformers' own switch is not used: it acts in training mode only, and the base stays in eval.
    """
    first = len(lm.blocks) if blocks == "all" else blocks
    for number, block in enumerate(lm.blocks):
        unwrap(block, NAME)
        if number < first:
            wrap(block, NAME, _recomputed)


def _recomputed(block: nn.Module, plain: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return plain(*args, **kwargs)
        return checkpoint(plain, *args, use_reentrant=False, **kwargs)

    return forward
