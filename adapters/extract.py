"""An adapter from a fully tuned model: the difference of its weights from the base's, by SVD, module by module.

Only one module's weights are in memory at a time. What no low-rank update of a linear layer or embedding can say
(norms, biases) is measured and told, and refused unless asked for: leaving it out is part of the error.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adapters.blend.truncate import Truncated, from_dense, total_error
from adapters.lm import LM_PREFIXES
from adapters.low_rank import LowRank
from configs.errors import UserError
from data_prep.base_files import DERIVED_TENSORS, weight_files

if TYPE_CHECKING:
    from pathlib import Path

    from data_prep.base_files import BaseFiles

EMBEDDING = re.compile(r"decoder\.model\.decoder\.embed_tokens\.\d+")


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
            embedding = EMBEDDING.fullmatch(module) is not None
            modules[module] = from_dense(delta, rank=rank, energy=energy, embedding=embedding)
        else:
            left_out[name] = float(delta.norm())
    _check(modules, left_out, leave_out, tuned)
    return Extracted(modules, left_out)


def _pairs(base: "BaseFiles", tuned: "BaseFiles") -> Iterator[tuple[str, Tensor, Tensor]]:
    """Tensors of the LM by name, from both."""
    from safetensors import safe_open

    ours, theirs = _places(base), _places(tuned)
    different = sorted(ours.keys() ^ theirs.keys())
    if different:
        raise UserError(
            f"These are two different models: only one has {different[0]}"
            + (f" (and {len(different) - 1} more)." if different[1:] else "."),
            where=f"{base.folder} and {tuned.folder}",
            fix="Give the base that the tuned model started from.",
        )
    for name in sorted(ours):
        with safe_open(ours[name], framework="pt") as one, safe_open(theirs[name], framework="pt") as other:
            pair = one.get_tensor(name), other.get_tensor(name)
        if pair[0].shape != pair[1].shape:
            raise UserError(
                f"{name} is {list(pair[0].shape)} in the base and {list(pair[1].shape)} in the tuned model.",
                where=str(tuned.folder),
                fix="Give the base that the tuned model started from.",
            )
        yield name, *pair


def _places(files: "BaseFiles") -> "dict[str, Path]":
    from safetensors import safe_open

    places = {}
    for shard in weight_files(files.folder):
        with safe_open(shard, framework="pt") as opened:
            names = opened.keys()
        places |= {n: shard for n in names if n.startswith(LM_PREFIXES) and n not in DERIVED_TENSORS}
    return places


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
