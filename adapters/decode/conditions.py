"""What the music is about: text states, projected and turned into cross-attention keys and values once per condition.

Rows of a batch may have texts of different length, and a row may hear several texts at once, cross-faded: attention to
each is mixed by `mix`, which lives on the device and may change at every step. The null row of classifier-free
guidance has no state here: its text states are zero, no projection of cross-attention has a bias, so what it hears is
exactly zero and is skipped.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from adapters.decode.weights import DecoderWeights


@dataclass
class CrossPart:
    """One text per row: keys and values of every layer, [layers] of [B, heads, L, head_dim]."""

    keys: list[Tensor]
    values: list[Tensor]
    mask: Bool[Tensor, "B 1 1 L"] | None


@dataclass
class Hearing:
    """All that the rows hear: parts, and how much of each, `mix [parts, B, 1]`; None when there is but one part."""

    parts: list[CrossPart]
    mix: Tensor | None = None
    prefix: Float[Tensor, "N P D"] | None = None
    """Heard before the first step (melody): projected states of the text rows, then of the null rows."""
    copied_from: list[CrossPart] = field(default_factory=list)
    """Where `own` took its parts from."""

    def own(self) -> "Hearing":
        """The same in buffers of its own, which `take_over` may overwrite."""
        parts = [
            CrossPart(
                [k.clone() for k in part.keys],
                [v.clone() for v in part.values],
                None if part.mask is None else part.mask.clone(),
            )
            for part in self.parts
        ]
        mix = None if self.mix is None else self.mix.clone()
        return Hearing(parts, mix, self.prefix, list(self.parts))

    def take_over(self, other: "Hearing") -> bool:
        """Hear what `other` hears, in these very buffers, so that captured graphs stay good; False if shapes differ."""
        mine, theirs = self._buffers(), other._buffers()
        masked = [[part.mask is not None for part in hearing.parts] for hearing in (self, other)]
        if [tensor.shape for tensor in mine] != [tensor.shape for tensor in theirs] or masked[0] != masked[1]:
            return False
        same = len(self.copied_from) == len(other.parts) and all(map(operator.is_, self.copied_from, other.parts))
        if not same:
            for old, new in zip(mine, theirs, strict=True):
                old.copy_(new)
            self.copied_from = list(other.parts)
        elif self.mix is not None and other.mix is not None:
            self.mix.copy_(other.mix)
        return True

    def _buffers(self) -> list[Tensor]:
        tensors = [tensor for part in self.parts for tensor in (*part.keys, *part.values, part.mask)]
        return [tensor for tensor in (*tensors, self.mix, self.prefix) if tensor is not None]

    def keep(self, rows: Tensor) -> "Hearing":
        """The same for these rows only."""
        parts = [
            CrossPart(
                [k.index_select(0, rows) for k in part.keys],
                [v.index_select(0, rows) for v in part.values],
                None if part.mask is None else part.mask.index_select(0, rows),
            )
            for part in self.parts
        ]
        mix = None if self.mix is None else self.mix.index_select(1, rows)
        if self.prefix is None:
            return Hearing(parts, mix)
        both = torch.cat([rows, rows + len(self.prefix) // 2])
        return Hearing(parts, mix, self.prefix.index_select(0, both))


def hear_part(weights: DecoderWeights, states: Sequence[Float[Tensor, "_ D_text"]]) -> CrossPart:
    """One text per row, projected and ready to be attended to; a text of no tokens is heard as nothing at all."""
    lengths = torch.tensor([len(state) for state in states])
    longest = max(int(lengths.max()), 1)
    padded = pad_sequence([state.float() for state in states], batch_first=True)  # [B, L, D_text]
    padded = torch.nn.functional.pad(padded, (0, 0, 0, longest - padded.shape[1]))
    holds_text = torch.arange(longest)[None] < lengths[:, None]  # [B, L]
    padded, holds_text = padded.to(weights.device, weights.dtype), holds_text.to(weights.device)
    projected = _rows(weights.text, padded) * holds_text[..., None]  # [B, L, D]
    # A row without any text attends to one zero state: its values are zero, and so is what it hears.
    mask = holds_text | ((torch.arange(longest) == 0) & (lengths[:, None] == 0)).to(weights.device)
    keys, values = [], []
    for layer in weights.layers:
        if layer.cross is None:
            continue
        k, v = _rows(layer.cross.kv, projected).chunk(2, dim=-1)  # [B, L, D]
        keys.append(_heads(k, weights.shape.n_heads))
        values.append(_heads(v, weights.shape.n_heads))
    return CrossPart(keys, values, None if bool((lengths == longest).all()) else mask[:, None, None])


def _rows(projection: object, x: Float[Tensor, "B L D_in"]) -> Float[Tensor, "B L D_out"]:
    return projection(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # type: ignore[operator]


def _heads(x: Float[Tensor, "B L D"], n_heads: int) -> Float[Tensor, "B H L d"]:
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2).contiguous()
