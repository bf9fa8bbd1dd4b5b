"""What the music should follow, for a batch of rows: values and a mask by kind of condition.

Which kinds there are is the model's matter (`LMSpec.conditions`): text states, a melody, another track, beats. A row
whose mask is all false has the null condition of that kind, the one that guidance compares with.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data_prep.lm_spec import TEXT, ConditionKind, LMSpec

Values = Float[Tensor, "B n width"] | Int[Tensor, "B n width"]


@dataclass(frozen=True)
class Condition:
    """One kind of condition for every row. What stands outside the mask means nothing."""

    values: Values
    mask: Bool[Tensor, "B n"]

    def to(self, device: torch.device | str) -> "Condition":
        """The same on a device."""
        return Condition(self.values.to(device, non_blocking=True), self.mask.to(device, non_blocking=True))


@dataclass(frozen=True)
class Conditions:
    """The conditions of a batch by kind. A kind that is absent is null for every row."""

    by_kind: Mapping[str, Condition]

    @staticmethod
    def of_text(states: Float[Tensor, "B L D_text"], mask: Bool[Tensor, "B L"]) -> "Conditions":
        """Text alone."""
        return Conditions({TEXT: Condition(states, mask)})

    @staticmethod
    def null(n_rows: int, spec: LMSpec, device: torch.device | str = "cpu") -> "Conditions":
        """Nothing at all: what guidance compares with."""
        return batch_conditions([{}] * n_rows, spec).to(device)

    def __getitem__(self, kind: str) -> Condition:
        return self.by_kind[kind]

    def get(self, kind: str) -> Condition | None:
        """The condition of this kind, if the batch has it."""
        return self.by_kind.get(kind)

    def dropped(self, rows: Bool[Tensor, " B"], kinds: Collection[str] | None = None) -> "Conditions":
        """The same with the null condition in these rows: of these kinds, or of all."""
        changed = {
            name: replace(condition, mask=condition.mask & ~rows[:, None].to(condition.mask.device))
            for name, condition in self.by_kind.items()
            if kinds is None or name in kinds
        }
        return Conditions({**self.by_kind, **changed})

    def to(self, device: torch.device | str) -> "Conditions":
        """The same on a device."""
        return Conditions({name: condition.to(device) for name, condition in self.by_kind.items()})


RowConditions = Mapping[str, Tensor]
"""The conditions of one row: values [n, width] by kind, without padding. A kind that is absent is null."""


def batch_conditions(rows: Sequence[RowConditions], spec: LMSpec) -> Conditions:
    """Rows side by side, padded to the longest of each kind; on the CPU.

    Raises:
        ValueError: a row has a kind that the model does not follow, or values of another width.
    """
    unknown = sorted({name for row in rows for name in row} - {kind.name for kind in spec.conditions})
    if unknown:
        raise ValueError(f"the model does not follow {unknown[0]!r}: it follows {[k.name for k in spec.conditions]}")
    return Conditions({kind.name: _padded([row.get(kind.name) for row in rows], kind) for kind in spec.conditions})


def _padded(values: Sequence[Tensor | None], kind: ConditionKind) -> Condition:
    longest = max((len(value) for value in values if value is not None), default=0)
    dtype = torch.float32 if kind.values == "floats" else torch.long
    padded = torch.zeros(len(values), max(longest, 1), kind.width, dtype=dtype)  # [B, n, width]
    mask = torch.zeros(padded.shape[:2], dtype=torch.bool)
    for row, value in enumerate(values):
        if value is None:
            continue
        if value.shape[1:] != (kind.width,):
            raise ValueError(f"{kind.name} has {kind.width} numbers per entry, not {tuple(value.shape[1:])}")
        padded[row, : len(value)] = value.to(dtype)
        mask[row, : len(value)] = True
    return Condition(padded, mask)
