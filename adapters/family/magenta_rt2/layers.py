"""The transformer layers of Magenta RealTime 2: attention with a learnt sink and a learnt scale, norms on both sides.

Every projection is a plain `nn.Linear`, so that LoRA and quantisation find them. Formulas follow the official code
(magenta-rt 2.0.3, `jax/transformer.py` and its sequence layers); sums run in another order, so results agree to fp32
rounding. Norms and softmax are computed in fp32 in every precision.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from adapters.family.magenta_rt2.ring import Heard, Ring
from data_prep.magenta_rt2.sizes import StackSize

NORM_EPSILON = 1e-6


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + 1e-6) times a learnt weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Computed in fp32, returned in the input's precision."""
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), NORM_EPSILON).to(x.dtype)


class Sink(nn.Module):
    """A learnt key and value per head that every frame attends to. Its key meets the query before it is scaled."""

    def __init__(self, heads: int, head_width: int) -> None:
        super().__init__()
        self.key = nn.Parameter(torch.zeros(heads, head_width))
        self.value = nn.Parameter(torch.zeros(heads, head_width))


class Attention(nn.Module):
    """Attention over a source of its own width; queries carry a learnt scale per dimension."""

    def __init__(self, size: StackSize, source_width: int, *, sink: bool) -> None:
        super().__init__()
        self.heads, self.head_width = size.heads, size.head_width
        inner = size.heads * size.head_width
        self.q_proj = nn.Linear(size.width, inner, bias=False)
        self.k_proj = nn.Linear(source_width, inner, bias=False)
        self.v_proj = nn.Linear(source_width, inner, bias=False)
        self.out_proj = nn.Linear(inner, size.width, bias=False)
        self.scale = nn.Parameter(torch.zeros(size.head_width))
        self.sink = Sink(size.heads, size.head_width) if sink else None

    def query_scale(self) -> Float[Tensor, " d"]:
        """What each dimension of a query is multiplied by: 1/sqrt(d) where the learnt value is 0."""
        return F.softplus(self.scale.float()) / (math.log(2.0) * math.sqrt(self.head_width))

    def queries(self, x: Float[Tensor, "B n D"]) -> Float[Tensor, "B H n d"]:
        """Scaled queries."""
        q = self._by_head(self.q_proj(x))
        return q * self.query_scale().to(q.dtype)

    def keys_values(self, source: Float[Tensor, "B n E"]) -> tuple[Float[Tensor, "B H n d"], Float[Tensor, "B H n d"]]:
        """Keys and values of a source."""
        return self._by_head(self.k_proj(source)), self._by_head(self.v_proj(source))

    def sink_key_value(self, n_rows: int) -> tuple[Float[Tensor, "B H 1 d"], Float[Tensor, "B H 1 d"]]:
        """The sink for every row; the query's scale is divided out of its key."""
        assert self.sink is not None
        key = (self.sink.key.float() / self.query_scale()).to(self.sink.value.dtype)
        shape = (n_rows, self.heads, 1, self.head_width)
        return key[None, :, None].expand(shape), self.sink.value[None, :, None].expand(shape)

    def ring(self, n_rows: int, window_frames: int) -> Ring:
        """An empty window for `n_rows` pieces."""
        return Ring(window_frames, *self.sink_key_value(n_rows))

    def hear(self, source: Float[Tensor, "B n E"], ring: Ring | None, mask: Bool[Tensor, "n S"] | None) -> Heard:
        """What the n frames of a source attend to: with a ring, what it kept; else all of the source, under `mask`."""
        keys, values = self.keys_values(source)
        if ring is not None:
            return ring.push(keys, values)
        if self.sink is None:
            return keys, values, mask
        sink_key, sink_value = self.sink_key_value(len(source))
        keys = torch.cat([sink_key.to(keys.dtype), keys], dim=2)
        return keys, torch.cat([sink_value.to(values.dtype), values], dim=2), mask

    def attend(self, x: Float[Tensor, "B n D"], heard: Heard) -> Float[Tensor, "B n D"]:
        """The attended values through the output projection."""
        keys, values, mask = heard
        context = F.scaled_dot_product_attention(self.queries(x), keys, values, attn_mask=mask, scale=1.0)
        return self.out_proj(context.transpose(1, 2).flatten(2))

    def _by_head(self, x: Float[Tensor, "B n I"]) -> Float[Tensor, "B H n d"]:
        return x.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)


class FeedForward(nn.Module):
    """Up, GELU (its tanh form), down."""

    def __init__(self, size: StackSize) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size.width, size.hidden)
        self.fc2 = nn.Linear(size.hidden, size.width)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Position by position."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class TemporalLayer(nn.Module):
    """Self-attention over past frames, cross-attention over past conditions, feed-forward; each a residual branch."""

    def __init__(self, size: StackSize, source_width: int) -> None:
        super().__init__()
        self.self_attn = Attention(size, size.width, sink=True)
        self.cross_attn = Attention(size, source_width, sink=True)
        self.ffn = FeedForward(size)
        self.norms = nn.ModuleDict(
            {f"{side}_{part}": RMSNorm(size.width) for part in ("self", "cross", "ffn") for side in ("pre", "post")}
        )

    def forward(
        self,
        x: Float[Tensor, "B n D"],
        source: Float[Tensor, "B n E"],
        mask: Bool[Tensor, "n S"] | None = None,
        rings: tuple[Ring, Ring] | None = None,
    ) -> Float[Tensor, "B n D"]:
        """Frames in a row: all from the beginning under `mask`, or the next ones after what the rings kept."""
        self_ring, cross_ring = rings if rings is not None else (None, None)
        h = self.norms["pre_self"](x)
        x = x + self.norms["post_self"](self.self_attn.attend(h, self.self_attn.hear(h, self_ring, mask)))
        h = self.norms["pre_cross"](x)
        x = x + self.norms["post_cross"](self.cross_attn.attend(h, self.cross_attn.hear(source, cross_ring, mask)))
        return x + self.norms["post_ffn"](self.ffn(self.norms["pre_ffn"](x)))


class DepthLayer(nn.Module):
    """Self-attention over the levels of one frame and feed-forward."""

    def __init__(self, size: StackSize) -> None:
        super().__init__()
        self.self_attn = Attention(size, size.width, sink=False)
        self.ffn = FeedForward(size)
        self.norms = nn.ModuleDict(
            {f"{side}_{part}": RMSNorm(size.width) for part in ("self", "ffn") for side in ("pre", "post")}
        )

    def forward(
        self, x: Float[Tensor, "N n D"], mask: Bool[Tensor, "n S"] | None = None, levels: "Levels | None" = None
    ) -> Float[Tensor, "N n D"]:
        """All levels under `mask`, or the next one after those that `levels` holds."""
        h = self.norms["pre_self"](x)
        keys, values = self.self_attn.keys_values(h)
        heard = (keys, values, mask) if levels is None else levels.push(keys, values)
        x = x + self.norms["post_self"](self.self_attn.attend(h, heard))
        return x + self.norms["post_ffn"](self.ffn(self.norms["pre_ffn"](x)))


class Levels:
    """Keys and values of the levels of the frame being made; started anew with every frame."""

    def __init__(self, n_rows: int, size: StackSize, n_levels: int, like: Tensor) -> None:
        self.keys = like.new_zeros(n_rows, size.heads, n_levels, size.head_width)
        self.values = torch.zeros_like(self.keys)
        self.n_known = 0

    def push(self, keys: Float[Tensor, "B H 1 d"], values: Float[Tensor, "B H 1 d"]) -> Heard:
        """Take in the next level; get all levels so far."""
        self.keys[:, :, self.n_known : self.n_known + 1] = keys
        self.values[:, :, self.n_known : self.n_known + 1] = values
        self.n_known += 1
        return self.keys[:, :, : self.n_known], self.values[:, :, : self.n_known], None
