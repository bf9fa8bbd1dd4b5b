"""What cross-attention reads: text states, projected and turned into keys and values once per text.

Rows of a batch may have texts of different length, and a row may follow several texts at once, cross-faded: what
attention gives for each is added up by `shares`, which lie on the device and may change at every step. The null row of
classifier-free guidance has no states here: its text states are zero, no projection of cross-attention has a bias, so
what attention gives is exactly zero and is skipped.
"""

import operator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from adapters.added_conditions.prefix import Prefix
from adapters.conditions import Condition
from adapters.decode.projections import Projection
from adapters.family.musicgen.kv_cache import as_bias
from adapters.family.musicgen.weights import DecoderWeights


@dataclass
class TextStates:
    """One text per row: keys and values of every layer, [layers] of [B, heads, L, head_dim]."""

    keys: list[Tensor]
    values: list[Tensor]
    mask: Float[Tensor, "B 1 1 L"] | None
    """What is added to the scores: 0 where there is text, -inf where there is none. None: all is text."""
    added: Float[Tensor, "B S D"] | None = None
    """What an adapter adds to the decoder's input, step by step; nothing behind its end."""
    before: Prefix | None = None
    """What an adapter puts before the first step."""


@dataclass
class ConditionStates:
    """All that the rows follow: texts, and how much of each, `shares [parts, B, 1]`; None when there is but one."""

    parts: list[TextStates]
    shares: Tensor | None = None
    prefix: Float[Tensor, "N P D"] | None = None
    """Read before the first step: projected states of the rows with text, then of the null rows."""
    copied_from: list[TextStates] = field(default_factory=list)
    """Where `own` took its parts from."""

    def own(self) -> "ConditionStates":
        """The same in buffers of its own, which `take_over` may overwrite."""
        parts = [
            TextStates(
                [k.clone() for k in part.keys],
                [v.clone() for v in part.values],
                None if part.mask is None else part.mask.clone(),
            )
            for part in self.parts
        ]
        shares = None if self.shares is None else self.shares.clone()
        return ConditionStates(parts, shares, self.prefix, list(self.parts))

    def take_over(self, other: "ConditionStates") -> bool:
        """Follow what `other` does in these very buffers, so that graphs stay good; False if shapes differ.

        Only for states that `own` made: they belong to nobody else.
        """
        mine, theirs = self._buffers(), other._buffers()
        masked = [[part.mask is not None for part in states.parts] for states in (self, other)]
        if [tensor.shape for tensor in mine] != [tensor.shape for tensor in theirs] or masked[0] != masked[1]:
            return False
        same = len(self.copied_from) == len(other.parts) and all(map(operator.is_, self.copied_from, other.parts))
        if not same:
            for old, new in zip(mine, theirs, strict=True):
                old.copy_(new)
            self.copied_from = list(other.parts)
        elif self.shares is not None and other.shares is not None:
            self.shares.copy_(other.shares)
        return True

    def keep(self, rows: Tensor) -> "ConditionStates":
        """The same for these rows only."""
        parts = [
            TextStates(
                [k.index_select(0, rows) for k in part.keys],
                [v.index_select(0, rows) for v in part.values],
                None if part.mask is None else part.mask.index_select(0, rows),
            )
            for part in self.parts
        ]
        shares = None if self.shares is None else self.shares.index_select(1, rows)
        if self.prefix is None:
            return ConditionStates(parts, shares)
        both = torch.cat([rows, rows + len(self.prefix) // 2])
        return ConditionStates(parts, shares, self.prefix.index_select(0, both))

    def _buffers(self) -> list[Tensor]:
        tensors = [tensor for part in self.parts for tensor in (*part.keys, *part.values, part.mask)]
        return [tensor for tensor in (*tensors, self.shares, self.prefix) if tensor is not None]


def text_states(weights: DecoderWeights, text: Condition) -> TextStates:
    """One text per row, projected and ready to be attended to; a text of no tokens adds nothing at all."""
    holds_text, values = text.mask.to(weights.device), text.values.to(weights.device, weights.dtype)  # [B, L], …
    projected = _rows(weights.text, values) * holds_text[..., None]  # [B, L, D]
    # A row without any text attends to one zero state: its values are zero, and so is what attention gives.
    first = torch.arange(holds_text.shape[1], device=weights.device) == 0
    mask = holds_text | (first & ~holds_text.any(1, keepdim=True))
    keys, shown = [], []
    for layer in weights.layers:
        if layer.cross is None:
            continue
        k, v = _rows(layer.cross.kv, projected).chunk(2, dim=-1)  # [B, L, D]
        keys.append(_heads(k, weights.spec.heads))
        shown.append(_heads(v, weights.spec.heads))
    bias = None if bool(text.mask.all()) else as_bias(mask, weights.dtype)[:, None, None]
    return TextStates(keys, shown, bias)


def _rows(projection: Projection, x: Float[Tensor, "B L D_in"]) -> Float[Tensor, "B L D_out"]:
    return projection(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _heads(x: Float[Tensor, "B L D"], n_heads: int) -> Float[Tensor, "B H L d"]:
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2).contiguous()
