"""Keys and values of what was played, allocated once per window and never copied while playing.

The model's steps are aligned: row b's step s is at place s for every b, so no padding and no mask is needed between
rows. `append` writes the newest steps and hands back what attention may look at.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from adapters.decode.shape import DecoderShape

BUCKET = 256
"""Capacity comes in multiples of this, so that windows of similar length reuse memory and captured graphs."""


def bucket(n_steps: int) -> int:
    """The capacity that holds so many steps."""
    return -(-n_steps // BUCKET) * BUCKET


class KeyValueCache:
    """Self-attention's memory for N rows: `keys` and `values` are [layers, N, heads, capacity, head_dim].

    On a CPU both lie in memory the other way round, place by place within each channel: one query then meets them in
    two products of a row with a matrix. At 1480 places that takes half the time of scaled_dot_product_attention (see
    docs/log.md).
    """

    def __init__(
        self, shape: DecoderShape, n_rows: int, n_steps: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.capacity = bucket(n_steps)
        size = (shape.n_layers, n_rows, shape.n_heads, self.capacity, shape.head_dim)
        self.turned = device.type == "cpu"
        turned = (*size[:3], shape.head_dim, self.capacity)
        keys, values = (torch.zeros(turned if self.turned else size, device=device, dtype=dtype) for _ in range(2))
        self.keys, self.values = (keys.mT, values.mT) if self.turned else (keys, values)
        self._see_rows()

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

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        self.keys, self.values = (
            held.mT.index_select(1, rows).mT if self.turned else held.index_select(1, rows)
            for held in (self.keys, self.values)
        )
        self._see_rows()

    def append_one(self, layer: int, at: int, k: Float[Tensor, "N H 1 d"], v: Float[Tensor, "N H 1 d"]) -> None:
        """Write one step, through views made beforehand: a step of a small model is bound by the number of calls."""
        self.key_places[layer].select(2, at).copy_(k.select(2, 0))
        self.value_places[layer].select(2, at).copy_(v.select(2, 0))

    def _see_rows(self) -> None:
        """Per layer: both as [N, H, capacity, d] to write to, and as [N·H, d, capacity] to read from."""
        self.key_places, self.value_places = self.keys.unbind(0), self.values.unbind(0)
        self.key_rows = [keys.mT.flatten(0, 1) for keys in self.key_places] if self.turned else []
        self.value_rows = [values.mT.flatten(0, 1) for values in self.value_places] if self.turned else []


def reachable(at: Tensor, reach: int) -> Bool[Tensor, "1 1 1 {reach}"]:
    """Mask of the steps up to and with `at`."""
    return (torch.arange(reach, device=at.device) <= at)[None, None, None]
