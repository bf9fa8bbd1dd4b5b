"""Keys and values of what was played, allocated once per window and never copied while playing.

The model's steps are aligned: row b's step s is at place s for every b, so no padding and no mask is needed between
rows. `append` writes the newest steps and hands back what attention may look at.
"""

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from data_prep.lm_spec import LMSpec

if TYPE_CHECKING:
    from adapters.family.musicgen.cpu_attention import LookBack

BUCKET = 256
"""Capacity comes in multiples of this, so that windows of similar length reuse memory and captured graphs."""


LOOPS_PAY_FROM = 1 << 17
"""Bytes of keys and values that a step adds to a row, in fp32. For models much smaller than musicgen-small the compiled
loops of cpu_attention.py save less time than it takes to load them, 1.7 s."""


def loops_pay(spec: LMSpec, device: torch.device) -> bool:
    """Whether a step's attention runs in cpu_attention.py's loops."""
    return device.type == "cpu" and 8 * spec.layers * spec.hidden >= LOOPS_PAY_FROM


def bucket(n_steps: int) -> int:
    """The capacity that holds so many steps."""
    return -(-n_steps // BUCKET) * BUCKET


class KeyValueCache:
    """Self-attention's memory for N rows: `keys` and `values` are [layers, N, heads, capacity, head_dim]."""

    def __init__(self, spec: LMSpec, n_rows: int, n_steps: int, device: torch.device, dtype: torch.dtype) -> None:
        self.capacity = bucket(n_steps)
        size = (spec.layers, n_rows, spec.heads, self.capacity, spec.hidden // spec.heads)
        self.keys, self.values = (torch.zeros(size, device=device, dtype=dtype) for _ in range(2))
        self.loops = loops_pay(spec, device) and dtype != torch.float16  # numba has none

    @property
    def n_bytes(self) -> int:
        """Memory held."""
        return 2 * self.keys.numel() * self.keys.element_size()

    def append(
        self, layer: int, at: int, k: Float[Tensor, "N H n d"], v: Float[Tensor, "N H n d"]
    ) -> tuple[Float[Tensor, "N H s d"], Float[Tensor, "N H s d"]]:
        """Write steps at .. at + n, hand back all steps so far."""
        end = at + k.shape[2]
        self.keys[layer, :, :, at:end] = k
        self.values[layer, :, :, at:end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def append_at(
        self, layer: int, at: Tensor, reach: int, k: Float[Tensor, "N H 1 d"], v: Float[Tensor, "N H 1 d"]
    ) -> tuple[Float[Tensor, "N H s d"], Float[Tensor, "N H s d"]]:
        """As `append` for one step whose place is on the device, `at [1]`; hands back the first `reach` steps.

        Places behind `at` hold zeros or older music: the caller masks them. Shapes never change: a graph can hold it.
        """
        self.keys[layer].index_copy_(2, at, k)
        self.values[layer].index_copy_(2, at, v)
        return self.keys[layer, :, :, :reach], self.values[layer, :, :, :reach]

    def reach(self, n_places: int) -> int:
        """Places that a step with fixed shapes looks at to see the first `n_places`."""
        return min(bucket(n_places), self.capacity)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        self.keys, self.values = self.keys.index_select(1, rows), self.values.index_select(1, rows)
        self.__dict__.pop("look_back", None)

    @cached_property
    def look_back(self) -> "LookBack":
        """One step's attention in compiled loops, over these very buffers."""
        from adapters.family.musicgen.cpu_attention import LookBack  # loads numba: 1.7 s that not all models need

        return LookBack(self.keys, self.values)


def reachable(at: Tensor, reach: int, dtype: torch.dtype) -> Float[Tensor, "1 1 1 {reach}"]:
    """What attention adds to the scores of a step's places: 0 up to and with `at`, -inf behind it.

    As numbers, made once per step: a mask of booleans is turned into them in every layer.
    """
    return as_bias(torch.arange(reach, device=at.device) <= at, dtype)[None, None, None]


def as_bias(visible: Bool[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """0 where something may be seen, -inf elsewhere."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, -torch.inf)
