"""A condition per frame as a prefix: an entry for every few frames, in front of the first step.

The small vectors of `stride` frames side by side become one entry of the decoder's width, at the position of the step
that predicts the first of these frames: so a step can find its place. Steps keep the positions that they have without
a prefix, and a row attends to entries of its own only; a row that has none plays what the base plays alone. A row with
a prefix does not, not even at the start: attention is shared out among more places.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from adapters.added_conditions.frames import FrameCondition
from adapters.conditions import Condition
from adapters.pattern import Pattern

Positions = Callable[[int], Float[Tensor, "n D"]]
"""The decoder's positions of so many steps."""


@dataclass(frozen=True)
class Prefix:
    """Entries in front of the first step, positions included. A row attends to those of its `mask`; others are zero."""

    entries: Float[Tensor, "B P D"]
    mask: Bool[Tensor, "B P"]

    def __len__(self) -> int:
        """P."""
        return self.mask.shape[1]

    def keep(self, rows: Tensor) -> "Prefix":
        """The same for these rows only."""
        return Prefix(self.entries.index_select(0, rows), self.mask.index_select(0, rows))

    def lengthened(self, length: int) -> "Prefix":
        """With entries behind it that nobody attends to."""
        more = length - len(self)
        return Prefix(functional.pad(self.entries, (0, 0, 0, more)), functional.pad(self.mask, (0, more)))

    def equals(self, other: "Prefix") -> bool:
        """Whether both are the same to the bit."""
        same_size = self.entries.shape == other.entries.shape
        return same_size and torch.equal(self.mask, other.mask) and torch.equal(self.entries, other.entries)

    def for_passes(self, passes: int) -> "Prefix":
        """For the rows of every pass of guidance: all but the last, the null rows, attend to it."""
        masks = [self.mask] if passes == 1 else [*[self.mask] * (passes - 1), torch.zeros_like(self.mask)]
        return Prefix(self.entries.repeat(passes, 1, 1), torch.cat(masks))


def prefix_of(module: FrameCondition, given: Condition, pattern: Pattern, positions: Positions) -> Prefix:
    """The entries of one kind; rows and stretches without it are masked."""
    weight = module.out.weight
    n_frames, stride = given.mask.shape[1], module.stride
    n_entries = -(-n_frames // stride)
    mask = functional.pad(given.mask.to(weight.device), (0, n_entries * stride - n_frames))
    x = module.entries(given.values.to(weight.device))
    x = functional.pad(x, (0, 0, 0, mask.shape[1] - n_frames)) * mask[..., None].to(x)  # [B, P·stride, d]
    at = first_steps(pattern, n_frames)[::stride]
    places = positions(int(at[-1]) + 1)[at.to(weight.device, non_blocking=True)]  # [P, D]
    there = mask.unflatten(1, (n_entries, stride)).any(2) & (module.strength > 0)
    entries = module.out(x.unflatten(1, (n_entries, stride)).flatten(2)) * module.strength  # [B, P, D]
    return Prefix((entries + places.to(entries)) * there[..., None].to(entries), there)


def joined(parts: list[Prefix]) -> Prefix | None:
    """One behind the other; None of none."""
    if len(parts) < 2:
        return parts[0] if parts else None
    return Prefix(torch.cat([part.entries for part in parts], 1), torch.cat([part.mask for part in parts], 1))


def first_steps(pattern: Pattern, n_frames: int) -> Int[Tensor, " {n_frames}"]:
    """The step that predicts each frame's first code; frames that the pattern has no place for follow one by one."""
    span = min(n_frames, getattr(pattern, "span", 0) or n_frames)
    known = pattern.step_of_frame(span).amin(0) - 1
    return torch.cat([known, known[-1] + torch.arange(1, 1 + n_frames - span)])


def visible(mask: Bool[Tensor, "B P"], n_steps: int) -> Bool[Tensor, "B 1 Q Q"]:
    """What each of Q = P + n_steps places attends to: what comes before it, of the prefix only what the mask shows.

    Every place sees itself, so that none attends to nothing.
    """
    places = mask.shape[1] + n_steps
    before = torch.ones(places, places, dtype=torch.bool, device=mask.device).tril()
    itself = torch.eye(places, dtype=torch.bool, device=mask.device)
    shown = functional.pad(mask, (0, n_steps), value=True)[:, None]  # [B, 1, Q]
    return (before & shown | itself)[:, None]
