"""Something added to what a module puts out, for one call of the model around it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


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
