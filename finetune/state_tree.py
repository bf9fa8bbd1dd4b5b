"""Nested Python state (an optimizer's, a scaler's) as JSON plus named tensors, and back, exactly and without pickle.

JSON keeps Python floats exactly, infinities and NaN included; tuples, and dicts (whose keys may be numbers), are
marked, since JSON has neither. Tensors keep their dtype: 8-bit optimizers hold uint8 next to fp32.
"""

from typing import Any

from torch import Tensor

TENSOR, TUPLE, ITEMS = "__tensor__", "__tuple__", "__items__"


def pack(tree: Any, name: str = "") -> tuple[Any, dict[str, Tensor]]:
    """What JSON can hold of `tree`, and its tensors by the path at which they stood.

    Raises:
        TypeError: something is neither a number, text, None, a tensor nor a dict, list or tuple of these.
    """
    tensors: dict[str, Tensor] = {}
    return _pack(tree, name, tensors), tensors


def unpack(plain: Any, tensors: dict[str, Tensor]) -> Any:
    """Exact inverse of `pack`."""
    if isinstance(plain, list):
        return [unpack(value, tensors) for value in plain]
    if not isinstance(plain, dict):
        return plain
    if TENSOR in plain:
        return tensors[plain[TENSOR]]
    if TUPLE in plain:
        return tuple(unpack(value, tensors) for value in plain[TUPLE])
    return {key: unpack(value, tensors) for key, value in plain[ITEMS]}


def _pack(tree: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(tree, Tensor):
        tensors[name] = tree.detach().to("cpu", copy=True).contiguous()
        return {TENSOR: name}
    if isinstance(tree, dict):
        return {ITEMS: [[key, _pack(value, f"{name}/{key}", tensors)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        plain = [_pack(value, f"{name}/{index}", tensors) for index, value in enumerate(tree)]
        return plain if isinstance(tree, list) else {TUPLE: plain}
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"{name or 'the state'} holds a {type(tree).__name__}, which has no place in JSON")
