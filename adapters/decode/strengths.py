"""Adapters that stay live: their strengths are read at every step, so they can be turned while the music plays.

All low-rank parts of all adapters on one (fused) matrix are stacked: `down [R, D_in]`, `up [D_out, R]` and a strength
per rank. Turning a knob rewrites those small vectors in place, which is also what a captured CUDA graph reads; the
base's weights are never touched, so that switching adapters costs nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adapters.decode.projections import Projection
from adapters.low_rank import LowRank
from configs.errors import UserError


@dataclass(frozen=True)
class Turnable:
    """An update in the form that any strength can multiply: W x + strength · (gain ∘ W x + up · down x).

    Every scale is folded into `up`. DoRA is g ∘ (W + s·B A) with g its gain: up = g ∘ s·B, and here gain = g − 1.
    """

    down: Float[Tensor, "R D_in"]
    up: Float[Tensor, "D_out R"]
    gain: Float[Tensor, " D_out"] | None

    @classmethod
    def of(cls, update: LowRank, weight: Float[Tensor, "D_out D_in"], name: str) -> "Turnable":
        """The update of the linear layer that has this base weight.

        Raises:
            UserError: an embedding's update, which has no product to add to.
        """
        if update.embedding:
            raise UserError(
                f"the adapter changes an embedding ({name}), whose strength cannot change while it plays",
                fix="give it one constant strength, or merge it into its base first",
            )
        down, up = update.a.float(), update.b.float() * update.scale
        if update.magnitude is None:
            return cls(down, up, None)
        gain = update.gain(weight)
        return cls(down, up * gain[:, None], gain - 1)


class Adapted:
    """A projection plus the live adapters on it."""

    def __init__(self, inner: Projection, down: Tensor, up: Tensor, owner: Tensor, gains: Tensor | None) -> None:
        self.inner = inner
        self.down_t = down.t().contiguous()  # [D_in, R]
        self.up_t = up.t().contiguous()  # [R, D_out]
        self.owner = owner  # [R]: whose rank this is
        self.gains = gains  # [adapters, D_out]
        self.scale = torch.ones_like(down[:, 0])
        self.row_gain = None if gains is None else torch.ones_like(gains[0])

    def __call__(self, x: Float[Tensor, "M D_in"]) -> Float[Tensor, "M D_out"]:
        """The adapted product."""
        return self.added(x, self.inner(x))

    def added(self, x: Float[Tensor, "M D_in"], y: Float[Tensor, "M D_out"]) -> Float[Tensor, "M D_out"]:
        """`y`, the base's own product of `x`, with the adapters' part."""
        if self.row_gain is not None:
            y = y * self.row_gain
        return torch.addmm(y, (x @ self.down_t) * self.scale, self.up_t)

    def refresh(self, strengths: Float[Tensor, " n_adapters"]) -> None:
        """Take over new strengths, in place."""
        self.scale.copy_(strengths[self.owner])
        if self.gains is not None and self.row_gain is not None:
            self.row_gain.copy_(1 + strengths @ self.gains)


class StrengthBank:
    """The strengths of several adapters by name, and everything that reads them."""

    def __init__(self, names: Sequence[str], device: torch.device, dtype: torch.dtype) -> None:
        self.names = list(names)
        self.strengths = torch.ones(len(self.names), device=device, dtype=dtype)
        self.values = dict.fromkeys(self.names, 1.0)
        self.readers: list[Adapted] = []

    def adapt(self, inner: Projection, sizes: Sequence[int], touched: Sequence[Mapping[int, Turnable]]) -> Projection:
        """`inner`, a fusion of matrices with these output sizes, with every adapter's updates on its parts.

        `touched[i]` maps a part's number to adapter i's update. Nothing touched: `inner` itself.
        """
        like = self.strengths
        starts = [sum(sizes[:part]) for part in range(len(sizes))]
        downs, ups, owners = [], [], []
        gains = like.new_zeros(len(touched), sum(sizes))
        for adapter, parts in enumerate(touched):
            for part, update in parts.items():
                rows = slice(starts[part], starts[part] + sizes[part])
                up = like.new_zeros(sum(sizes), update.up.shape[1])
                up[rows] = update.up.to(like)
                downs.append(update.down.to(like))
                ups.append(up)
                owners += [adapter] * up.shape[1]
                if update.gain is not None:
                    gains[adapter, rows] = update.gain.to(like)
        if not downs:
            return inner
        owner = torch.tensor(owners, device=like.device)
        reader = Adapted(inner, torch.cat(downs), torch.cat(ups, dim=1), owner, gains if gains.any() else None)
        reader.refresh(self.strengths)
        self.readers.append(reader)
        return reader

    def set(self, values: Mapping[str, float]) -> bool:
        """Turn these adapters to these strengths; True when anything changed. Never waits for the device.

        Raises:
            UserError: no adapter has that name.
        """
        unknown = sorted(set(values) - set(self.names))
        if unknown:
            raise UserError(
                f"no adapter is called {unknown[0]!r}", fix=f"loaded are: {', '.join(self.names) or 'none'}"
            )
        changed = {name: value for name, value in values.items() if self.values[name] != value}
        for name, value in changed.items():
            self.strengths[self.names.index(name)].fill_(value)
        self.values.update(changed)
        for reader in self.readers if changed else ():
            reader.refresh(self.strengths)
        return bool(changed)
