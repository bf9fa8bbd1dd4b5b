"""Something added to what a module puts out, or put in its place, for one call of the model around it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def giving(module: nn.Module, out: Tensor) -> Iterator[None]:
    """While open, the module puts this out whatever it is given."""
    handle = module.register_forward_hook(lambda _module, _given, _out: out)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def adding(module: nn.Module, added: Tensor | None) -> Iterator[None]:
    """While open, `added` is part of what the module puts out. It must broadcast against that."""
    if added is None:
        yield
        return

    def hook(_module: nn.Module, _given: Any, out: Tensor) -> Tensor:
        return out + added.to(out.dtype)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
