"""Types and shapes at run time, each kind of call once.

A check of jaxtyping and beartype is a function of types, shapes and dtypes alone, and costs a tenth of a millisecond:
more than most calls of a small model. So what was called before with arguments of the same types and shapes, and gave
a result of the same, is not checked again. Where a value itself matters (`Literal`, a size that is computed), every
call is. A function is made ready at its first call: most are never called.
"""

import functools
import inspect
import threading
import types
from collections.abc import Callable
from typing import Any

import jaxtyping
import numpy as np
import torch

PLAIN = jaxtyping.jaxtyped
ARRAYS = (torch.Tensor, torch.nn.Parameter, np.ndarray)
HOLDERS = (tuple, list, dict, set, frozenset)
MANY, DEEP = 32, 4
"""Of a container with more, or inside more of them, nothing is concluded: it may hold itself."""


class UnknownKindError(Exception):
    """Of this value nothing can be concluded."""


def install(packages: list[str]) -> None:
    """All functions and dataclasses of these packages are checked from here on, when they are imported."""
    jaxtyping.jaxtyped = jaxtyped  # by this name the hook decorates
    jaxtyping.install_import_hook(packages, "beartype.beartype")


def jaxtyped(fn: Any = None, *, typechecker: Any) -> Any:
    """In the place of jaxtyping's decorator."""
    if fn is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if inspect.isclass(fn):
        made = vars(fn).get("__init__")
        if "__dataclass_fields__" in vars(fn) and isinstance(made, types.FunctionType):
            fn.__init__ = jaxtyped(made, typechecker=typechecker)
        return fn
    return sparing(fn, typechecker) if isinstance(fn, types.FunctionType) else PLAIN(fn, typechecker=typechecker)


def sparing(fn: types.FunctionType, typechecker: Any) -> Callable:
    """The function, whose calls are checked unless such a call was."""
    known: set[Any] = set()
    checked: list[Callable] = []
    given = threading.local()

    def result(*_: Any, **__: Any) -> Any:
        return given.result

    def first() -> Callable:
        checked.append(PLAIN(fn, typechecker=typechecker))
        told = types.FunctionType(result.__code__, fn.__globals__, fn.__name__, None, result.__closure__)
        checked.append(PLAIN(functools.wraps(fn)(told), typechecker=typechecker))
        if values_matter(fn):
            known.add(None)
        return checked[0]

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        try:
            key = (kind(args), kind(kwargs))
        except UnknownKindError:
            key = None
        plain = checked[0] if checked else first()
        if key is None or None in known:
            return plain(*args, **kwargs)
        if key not in known:
            found = plain(*args, **kwargs)
            known.add(key)
            return found
        found = fn(*args, **kwargs)
        try:
            whole = (key, kind((found,)))
        except UnknownKindError:
            whole = None
        if whole is None or whole not in known:
            given.result = found
            try:
                checked[1](*args, **kwargs)
            finally:
                del given.result  # what is counted as memory in use must not stay for it
            known.add(whole or key)
        return found

    return call


def values_matter(fn: types.FunctionType) -> bool:
    """Whether an annotation asks for more than types and shapes."""
    asked = [str(annotation) for annotation in fn.__annotations__.values()]
    return any(word in annotation for annotation in asked for word in ("{", "Literal", "Annotated"))


def kind(value: Any, depth: int = 0) -> Any:
    """All that a check of this value may depend on.

    Raises:
        UnknownKindError: it may depend on more.
    """
    made = type(value)
    if made in ARRAYS:
        return made, value.dtype, value.shape
    if made in HOLDERS:
        if len(value) > MANY or depth > DEEP:
            raise UnknownKindError
        inside = tuple(kind(part, depth + 1) for part in value)
        if made is not dict:
            return made, inside
        return made, inside, tuple(kind(part, depth + 1) for part in value.values())
    if isinstance(value, torch.Tensor):
        raise UnknownKindError
    return value if made is str else made
