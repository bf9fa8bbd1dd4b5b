"""An adapter from a fully tuned model: the difference of its weights from the base's, by SVD, module by module.

Only one module's weights are in memory at a time. What no low-rank update of a linear layer or embedding can say
(norms, biases) is measured and told, and refused unless asked for: leaving it out is part of the error.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adapters.blend.truncate import Truncated, from_dense, total_error
from adapters.family.port import family_of
from adapters.low_rank import LowRank
from configs.errors import UserError

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles


@dataclass(frozen=True)
class Extracted:
    """An adapter made of a difference, and how much of the difference it is.

    `left_out` has the norm of the difference of each tensor that an adapter cannot hold.
    """

    modules: dict[str, Truncated]
    left_out: dict[str, float]

    @property
    def updates(self) -> dict[str, LowRank]:
        """The adapter."""
        return {module: part.update for module, part in self.modules.items()}

    @property
    def error(self) -> float:
        """Relative Frobenius norm of what is missing, over all tensors of the LM."""
        lost = [Truncated(next(iter(self.modules.values())).update, norm, norm) for norm in self.left_out.values()]
        return total_error([*self.modules.values(), *lost])


@torch.no_grad()
def extract(
    base: "BaseFiles",
    tuned: "BaseFiles",
    *,
    rank: int | None = None,
    energy: float | None = None,
    leave_out: bool = False,
) -> Extracted:
    """The update of every module whose weight differs, at most of this rank or of this share of its energy.

    With neither, it is exact: the rank is what the difference has. `leave_out` accepts differences that cannot be held.

    Raises:
        UserError: other names or shapes, nothing differs, or something differs that an adapter cannot hold.
    """
    modules: dict[str, Truncated] = {}
    left_out: dict[str, float] = {}
    for name, ours, theirs in _pairs(base, tuned):
        if torch.equal(ours, theirs):
            continue
        delta = theirs.double() - ours.double()
        if not torch.isfinite(delta).all():
            raise UserError(f"{name} holds values that are no numbers.", where=str(tuned.folder))
        module = name.removesuffix(".weight")
        if module != name and delta.ndim == 2:
            embedding = family_of(base).is_embedding(module)
            modules[module] = from_dense(delta, rank=rank, energy=energy, embedding=embedding)
        else:
            left_out[name] = float(delta.norm())
    _check(modules, left_out, leave_out, tuned)
    return Extracted(modules, left_out)


def _pairs(base: "BaseFiles", tuned: "BaseFiles") -> Iterator[tuple[str, Tensor, Tensor]]:
    """Tensors of the LM by name, from both."""
    ours, theirs = family_of(base).stored(base), family_of(tuned).stored(tuned)
    different = sorted(set(ours) ^ set(theirs))
    if different:
        raise UserError(
            f"These are two different models: only one has {different[0]}"
            + (f" (and {len(different) - 1} more)." if different[1:] else "."),
            where=f"{base.folder} and {tuned.folder}",
            fix="Give the base that the tuned model started from.",
        )
    ours_shapes, theirs_shapes = ours.shapes, theirs.shapes
    for name in sorted(ours):
        if ours_shapes[name] != theirs_shapes[name]:
            raise UserError(
                f"{name} is {list(ours_shapes[name])} in the base and {list(theirs_shapes[name])} in the tuned model.",
                where=str(tuned.folder),
                fix="Give the base that the tuned model started from.",
            )
        yield name, ours[name], theirs[name]


def _check(modules: dict[str, Truncated], left_out: dict[str, float], leave_out: bool, tuned: "BaseFiles") -> None:
    if not modules:
        raise UserError(
            "Nothing to extract: no linear layer or embedding differs from the base.",
            where=str(tuned.folder),
            fix="Check that the tuned folder and the base are not the same model.",
        )
    if left_out and not leave_out:
        raise UserError(
            f"The tuned model also changed {len(left_out)} norms or biases, first {sorted(left_out)[0]}: "
            "an adapter cannot hold those.",
            where=str(tuned.folder),
            fix="Add --leave-out to go on without them; the error that is told includes them.",
        )
