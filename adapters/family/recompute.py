"""Activations that are computed again in the backward pass, not kept: of a whole block, or only what is cheap to make.

A block that is recomputed whole keeps its input and costs one more forward pass of itself. One that is recomputed in
part keeps everything but the outputs of its norms and of its activation function: those follow in an instant from
tensors that are kept in any case, and are a third of what a block of MusicGen keeps. Either way the gradients are the
same numbers: the same kernels run on the same inputs again.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from torch.utils.weak import WeakIdKeyDictionary

from adapters.family.lm import LM
from adapters.wrapped_forward import unwrap, wrap

NAME = "recompute"


def enable_checkpointing(lm: LM, blocks: int | Literal["all"] = "all", partly: int = 0) -> None:
    """Recompute the activations of the first `blocks` blocks in the backward pass, of `partly` more only the cheap.

    The others keep theirs. Can be called again with other numbers; 0 undoes it. transformers' own switch is not used:
    it acts in training mode only, and the base stays in eval.
    """
    first = len(lm.blocks) if blocks == "all" else blocks
    for number, block in enumerate(lm.blocks):
        for module in (block, *lm.cheap_modules(block)):
            unwrap(module, NAME)
        if number < first:
            wrap(block, NAME, _recomputed)
        elif number < first + partly and (cheap := lm.cheap_modules(block)):
            made = _MadeCheaply()
            wrap(block, NAME, made.around)
            for module in cheap:
                wrap(module, NAME, made.noting)


def _recomputed(block: nn.Module, plain: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return plain(*args, **kwargs)
        return checkpoint(plain, *args, use_reentrant=False, **kwargs)

    return forward


class _Again:
    """How to make one output again. What was made is held until everyone who saved it has had it."""

    def __init__(self, make: Callable[[Tensor], Tensor], of: Tensor) -> None:
        self.make, self.of = make, of
        self.saved = self.read = 0
        self.held: Tensor | None = None

    def take(self) -> Tensor:
        made = self.held
        if made is None:
            with torch.no_grad():
                made = self.make(self.of)
        self.read += 1
        self.held = made if self.read % self.saved else None
        return made


class _MadeCheaply:
    """Of one block: which tensors, while it runs forward, are outputs of its cheap modules."""

    def __init__(self) -> None:
        self.outputs: WeakIdKeyDictionary | None = None

    def around(self, block: nn.Module, plain: Callable[..., Any]) -> Callable[..., Any]:
        """The block's forward, in which such an output is saved as the way to make it."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return plain(*args, **kwargs)
            self.outputs = WeakIdKeyDictionary()
            try:
                with saved_tensors_hooks(self._saved, _wanted):
                    return plain(*args, **kwargs)
            finally:
                self.outputs = None

        return forward

    def noting(self, module: nn.Module, plain: Callable[..., Any]) -> Callable[..., Any]:
        """A cheap module's forward; under autocast its output is not what others save, and is left alone."""

        def forward(x: Tensor) -> Tensor:
            made = plain(x)
            if self.outputs is not None and not _is_autocast(x.device.type):
                self.outputs[made.untyped_storage()] = _Again(plain, x.detach())
            return made

        return forward

    def _saved(self, tensor: Tensor) -> Any:
        again = None if self.outputs is None else self.outputs.get(tensor.untyped_storage())
        if again is None:
            return tensor
        again.saved += 1
        return again, tensor.shape, tensor.stride(), tensor.storage_offset()


def _is_autocast(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _wanted(saved: Any) -> Tensor:
    if isinstance(saved, Tensor):
        return saved
    again, *view = saved
    return again.take().as_strided(*view)
