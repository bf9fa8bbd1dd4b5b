"""The one place that replaces a module's forward: by name, once, and undone exactly.

Several ideas need another forward pass on modules that are not ours (recomputation, the lean LoRA product, 8-bit
layers). Each wraps under its own name. A module is wrapped by one of them at most, so their order cannot matter.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

_MARK = "_forward_wrapped_by"


def wrap(module: nn.Module, name: str, make: Callable[[nn.Module, Callable[..., Any]], Callable[..., Any]]) -> None:
    """Let `make(module, plain_forward)` be the module's forward. Wrapping again under the same name changes nothing.

    Raises:
        RuntimeError: the module is wrapped under another name, or something else replaced its forward.
    """
    by = vars(module).get(_MARK)
    if by == name:
        return
    if by is not None or "forward" in vars(module):
        raise RuntimeError(f"{name}: the forward of this {type(module).__name__} is already {by or 'not its own'}")
    plain = type(module).forward.__get__(module)
    vars(module).update({"forward": make(module, plain), _MARK: name})


def unwrap(module: nn.Module, name: str) -> bool:
    """Give the module its own forward back, if it is wrapped under this name."""
    if vars(module).get(_MARK) != name:
        return False
    del vars(module)["forward"], vars(module)[_MARK]
    return True
