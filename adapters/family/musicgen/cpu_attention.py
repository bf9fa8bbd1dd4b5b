"""One step's attention over everything played so far, on a CPU: two products of a row with a long matrix.

torch has no product that reads a cache at the speed of memory for a single query, and none at all for one in bf16 (see
docs/log.md). These two loops do; numba compiles them for the processor at hand and keeps the result beside this file.
The cache may be fp32, or bf16 as its raw 16 bits; sums are fp32. Its loops know nothing of masks: every place up to
`n` counts. It runs on one thread: in bf16 as fast as two or three of torch's in fp32.
"""

from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float
from numba import njit
from numba.core import types
from numba.extending import overload
from torch import Tensor

AT_ONCE = 4
"""Places whose values are summed in one pass: fewer write the sum too often, more are too many streams to read."""
_FAST: Any = {"fastmath": {"reassoc", "contract"}, "error_model": "numpy", "nogil": True}
"""Sums may be taken in any order, or they could not run side by side; NaN stays NaN."""


class LookBack:
    """Attention of single steps over the keys and values of a cache, [layers, N, heads, S, d] each, fp32 or bf16."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        places = [(k.flatten(0, 1), v.flatten(0, 1)) for k, v in zip(keys, values, strict=True)]  # [N·H, S, d]
        self.places = places
        self.raw = [(_raw(k), _raw(v)) for k, v in places]
        self.scores = keys.new_empty(places[0][0].shape[:2], dtype=torch.float32)  # [N·H, S], room to work in

    def __call__(
        self,
        layer: int,
        at: int,
        q: Float[Tensor, "N H 1 d"],
        k: Float[Tensor, "N H 1 d"],
        v: Float[Tensor, "N H 1 d"],
        front: Bool[Tensor, "N P"] | None = None,
    ) -> Float[Tensor, "N H 1 d"]:
        """Write the step at place `at`, then softmax(q · keys / √d) · values over all places up to it.

        `front`: of the first P places, those that each row sees; None: all.
        """
        (key_places, value_places), (keys, values) = self.places[layer], self.raw[layer]
        key_places.select(1, at).copy_(k.reshape(-1, k.shape[3]))
        value_places.select(1, at).copy_(v.reshape(-1, v.shape[3]))
        query = q.reshape(-1, q.shape[3]).float()  # [N·H, d]
        reach = -(-(at + 1) // AT_ONCE) * AT_ONCE
        _score(query.numpy(), keys, at + 1, reach, q.shape[3] ** -0.5, self.scores.numpy())
        if front is not None:
            hidden = self.scores.view(*q.shape[:2], -1)[..., : front.shape[1]]  # [N, H, P]
            hidden.masked_fill_(~front[:, None], -torch.inf)
        heard = torch.empty_like(query)
        _gather(self.scores.narrow(1, 0, reach).softmax(-1).numpy(), values, heard.numpy())
        return heard.to(q.dtype).view(q.shape)


def _compiled(plain: Callable[..., Any]) -> Any:
    """The function as machine code, kept on disk where numba may write; else it is compiled anew each time (2 s)."""
    try:
        return njit(cache=True, **_FAST)(plain)
    except RuntimeError:
        return njit(**_FAST)(plain)


def _raw(held: Tensor) -> np.ndarray:
    """The same memory as numpy's, which has no bf16."""
    return (held.view(torch.uint16) if held.dtype == torch.bfloat16 else held).numpy()


@no_type_check
def _wide(x):
    """A number of the cache as fp32: bf16 is the upper half of an fp32 number."""
    raise NotImplementedError


@overload(_wide, inline="always")
@no_type_check
def _wide_typed(x):
    if isinstance(x, types.Float):
        return lambda x: x
    return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)


@_compiled
@no_type_check  # numba compiles the plain function: checks of shapes in tests would be in the way
def _score(q: Any, keys: Any, n: int, reach: int, scale: float, scores: Any) -> None:
    for r in range(len(q)):
        for s in range(n):
            dot = np.float32(0)
            for i in range(q.shape[1]):
                dot += q[r, i] * _wide(keys[r, s, i])
            scores[r, s] = dot * np.float32(scale)
        scores[r, n:reach] = -np.inf


@_compiled
@no_type_check
def _gather(shares: Any, values: Any, out: Any) -> None:
    for r in range(len(out)):
        share, held, heard = shares[r], values[r], out[r]
        heard[:] = 0
        for s in range(0, len(share), AT_ONCE):
            for i in range(len(heard)):
                some = np.float32(0)
                for j in range(AT_ONCE):
                    some += share[s + j] * _wide(held[s + j, i])
                heard[i] += some
