"""One module's update and its arithmetic: A, B, their scale, and what they come to as a dense ΔW.

Everything that reads, merges, blends or measures adapters goes through this class; nothing else knows that rsLoRA
divides by √r, that DoRA also rescales the base's own rows, or that an embedding's ΔW is transposed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """ΔW = scale · B A of one linear layer (weight [out, in]) or embedding table (weight [rows, width]).

    A linear layer has `a` [r, in] and `b` [out, r]; an embedding `a` [r, rows] and `b` [width, r], as in peft's files.
    With `magnitude` it is DoRA (Liu et al. 2024, arXiv:2402.09353, eq. 5): W + scale · B A, rescaled so that each
    output channel has that norm. ΔW then depends on the base's weight, and no A and B alone say it.
    """

    a: Float[Tensor, "r in"]
    b: Float[Tensor, "out r"]
    alpha: float
    rslora: bool = False
    magnitude: Float[Tensor, " out"] | None = None
    embedding: bool = False

    @property
    def rank(self) -> int:
        """The rank that r says; that of ΔW may be lower."""
        return self.a.shape[0]

    @property
    def scale(self) -> float:
        """What B A is multiplied by: alpha / r (Hu et al. 2021), or alpha / √r for rsLoRA (Kalajdzievski 2023)."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Shape of the weight that it changes."""
        rows, columns = self.b.shape[0], self.a.shape[1]
        return (columns, rows) if self.embedding else (rows, columns)

    def plain(self) -> "LowRank":
        """The same update with ordinary alpha / r scaling, which every other tool reads: alpha becomes scale · r."""
        return replace(self, alpha=self.scale * self.rank, rslora=False)

    def product(self) -> Float[Tensor, "rows columns"]:
        """The scaled B A in fp32 and in the weight's layout; for DoRA this is not yet ΔW."""
        dense = (self.b.float() @ self.a.float()) * self.scale
        return dense.T if self.embedding else dense

    def delta(self, weight: Float[Tensor, "rows columns"] | None = None) -> Float[Tensor, "rows columns"]:
        """ΔW in fp32. DoRA needs the base's `weight`; plain LoRA does not look at it.

        Raises:
            ValueError: DoRA without the base's weight.
        """
        product = self.product()
        if self.magnitude is None:
            return product
        if weight is None:
            raise ValueError("the ΔW of a DoRA update depends on the base's weight")
        moved = weight.float() + product
        gain = self.magnitude.float() / moved.norm(dim=self._norm_axis)
        return moved * (gain if self.embedding else gain[:, None]) - weight.float()

    def gain(self, weight: Float[Tensor, "rows columns"]) -> Float[Tensor, " out"]:
        """By what DoRA multiplies each output channel of W + scale · B A; ones for plain LoRA."""
        if self.magnitude is None:
            return torch.ones(self.b.shape[0])
        return self.magnitude.float() / (weight.float() + self.product()).norm(dim=self._norm_axis)

    @property
    def _norm_axis(self) -> int:
        return 0 if self.embedding else 1

    def norm(self) -> float:
        """Frobenius norm of scale · B A, without making it dense: ‖BA‖² = tr((BᵀB)(AAᵀ))."""
        a, b = self.a.double(), self.b.double()
        return self.scale * math.sqrt(max(0.0, float(((b.T @ b) * (a @ a.T)).sum())))


def merged_weight(weight: Tensor, updates: Sequence[tuple[LowRank, float]]) -> Tensor:
    """W + Σ strength · ΔW in fp32, each ΔW against W itself; weight and updates are on one device."""
    result = weight.float()
    for update, strength in updates:
        result = result + strength * update.delta(weight)
    return result


def layer_number(module: str) -> int | None:
    """Number of the decoder layer that a module of this name is in; None for embeddings, heads and the projection."""
    before, found, after = module.partition(".layers.")
    number = after.split(".", 1)[0] if found and before else ""
    return int(number) if number.isdigit() else None
