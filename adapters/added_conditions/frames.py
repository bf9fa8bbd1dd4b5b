"""Conditions per frame for a base that was made without: added to the decoder's input, learnt by the adapter.

Every LM step reads the frame whose first code it predicts and some frames behind it: the condition is a recording, so
looking ahead in it is no cheating. An entry becomes a small vector (`FrameCodes`: another track's codec tokens;
`FrameFeatures`: numbers such as a melody's chroma or beats); the vectors of the frames at `offsets` side by side become
one of the decoder's width. That last product starts at zero and has no bias: at the start, and wherever a condition is
absent, the base plays exactly what it would alone. Earlier frames reach a step through self-attention.

With a `stride` the vectors are not added to steps but become a prefix (`prefix.py`).
"""

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from adapters.conditions import Condition
from adapters.pattern import Pattern
from data_prep.lm_spec import ConditionKind

if TYPE_CHECKING:
    from adapters.metadata import AddedInfo


class FrameCondition(nn.Module):
    """One kind of condition per frame. `size` is the width d of an entry's small vector, `hidden` the decoder's D.

    `stride`: 0 where it is added to steps, else how many frames become one entry of a prefix.
    """

    offsets: Tensor

    def __init__(self, kind: ConditionKind, size: int, hidden: int, stride: int = 0) -> None:
        super().__init__()
        self.kind, self.size, self.stride = kind, size, stride
        self.strength = 1.0
        self.register_buffer("offsets", torch.tensor(offsets_of(kind.lookahead)), persistent=False)
        self.out = nn.Linear(size * (stride or len(self.offsets)), hidden, bias=False)
        nn.init.zeros_(self.out.weight)

    @abstractmethod
    def entries(self, values: Tensor) -> Float[Tensor, "B n d"]:
        """Small vectors of the frames' values [B, n, width]."""

    def forward(self, given: Condition, pattern: Pattern, n_steps: int) -> Float[Tensor, "B {n_steps} D"]:
        """What to add to the decoder's input at the first `n_steps` steps; zero in rows without a condition."""
        weight = self.out.weight
        n_frames = given.mask.shape[1]
        x = self.entries(given.values.to(weight.device))
        x = x * given.mask[..., None].to(x)  # [B, n, d]
        place = predicted_frames(pattern, n_steps, weight.device)[:, None] + self.offsets.to(weight.device)  # [S, J]
        inside = (place >= 0) & (place < n_frames)
        shown = x[:, place.clamp(0, n_frames - 1)] * inside[..., None].to(x)  # [B, S, J, d]
        return self.out(shown.flatten(2)) * self.strength


class FrameCodes(FrameCondition):
    """Another track's codec tokens: K tables of small vectors, summed per frame as the base sums its own."""

    def __init__(self, kind: ConditionKind, size: int, hidden: int, card: int, stride: int = 0) -> None:
        super().__init__(kind, size, hidden, stride)
        self.card = card
        self.tables = nn.Parameter(torch.zeros(kind.width, card, size))

    @torch.no_grad()
    def start_from(self, tables: Float[Tensor, "K card D"]) -> None:
        """Take the directions in which the base's own code vectors differ most, at unit size: sounds that the base
        holds for alike begin alike, which a few songs could not teach.

        Principal directions of the concatenated tables; the sum over codebooks has unit variance per number.
        """
        rows = tables.float().cpu()
        rows = rows - rows.mean(dim=1, keepdim=True)
        joined = rows.flatten(0, 1)  # [K · card, D]
        _, vectors = torch.linalg.eigh(joined.T @ joined)
        directions = vectors[:, -self.size :].flip(-1)  # [D, d], most important first
        directions = directions * directions.sum(0).sign()  # eigenvectors have no sign of their own
        small = rows @ directions  # [K, card, d]
        summed = small.var(dim=1).sum(0).mean().sqrt().clamp(min=1e-12)
        padded = functional.pad(small / summed, (0, self.size - directions.shape[1]))
        self.tables.copy_(padded.to(self.tables))

    def entries(self, values: Int[Tensor, "B n K"]) -> Float[Tensor, "B n d"]:
        """The sum of K table rows."""
        parts = [functional.embedding(values[..., k].long(), self.tables[k]) for k in range(self.kind.width)]
        return torch.stack(parts).sum(0)


class FrameFeatures(FrameCondition):
    """Numbers per frame, such as the twelve pitch classes of a melody."""

    def __init__(self, kind: ConditionKind, size: int, hidden: int, stride: int = 0) -> None:
        super().__init__(kind, size, hidden, stride)
        self.into = nn.Parameter(torch.zeros(size, kind.width))

    @torch.no_grad()
    def start(self, seed: int) -> None:
        """Random directions of unit size, from the seed alone."""
        generator = torch.Generator().manual_seed(seed)
        self.into.copy_(torch.randn(self.into.shape, generator=generator).to(self.into))

    def entries(self, values: Float[Tensor, "B n width"]) -> Float[Tensor, "B n d"]:
        """A linear map."""
        return functional.linear(values.to(self.into.dtype), self.into)


def offsets_of(lookahead: int) -> list[int]:
    """Frames that a step reads, counted from the one it predicts: 0, 1, 2, 4, … and the last it may look ahead to."""
    steps, at = [0], 1
    while at < lookahead:
        steps.append(at)
        at *= 2
    return [*steps, lookahead] if lookahead else steps


def predicted_frames(pattern: Pattern, n_steps: int, device: torch.device | str = "cpu") -> Int[Tensor, " {n_steps}"]:
    """The newest frame of which each step predicts a code: with delays, the frame of the codebook that lags least."""
    return pattern.frame_of_cell(n_steps + 1, device)[:, 1:].amax(0)


def build(info: "AddedInfo", n_codebooks: int, card: int, hidden: int) -> FrameCondition:
    """The module that an adapter's description asks for, for a base of these sizes, with zeros in it."""
    kind = kind_of(info, n_codebooks)
    if info.values == "codes":
        return FrameCodes(kind, info.size, hidden, card, info.stride_frames)
    return FrameFeatures(kind, info.size, hidden, info.stride_frames)


def kind_of(info: "AddedInfo", n_codebooks: int) -> ConditionKind:
    """How the values of this kind are stored and read."""
    plain = ConditionKind(info.name, info.width, per="frame", enters="frames", lookahead=info.lookahead_frames)
    return replace(plain, width=n_codebooks, values="ids") if info.values == "codes" else plain
