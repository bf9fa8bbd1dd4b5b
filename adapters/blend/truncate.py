"""The best A and B of a chosen rank for a ΔW, and how much of it they miss.

The best in the Frobenius norm is the leading part of the singular value decomposition (Eckart and Young 1936). Of a ΔW
that is already a product of thin factors it needs no dense matrix: with B = Q_b R_b and Aᵀ = Q_a R_a, the small core
R_b R_aᵀ has the same singular values. Arithmetic is in fp64, results are fp32.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adapters.low_rank import LowRank

ROUNDING, GRAM_ROUNDING = 1e-12, 1e-7
"""Singular values below this share of the largest are rounding of fp64, not part of a ΔW: of an SVD, and of the square
roots of a Gram matrix's eigenvalues."""


@dataclass(frozen=True)
class Truncated:
    """A ΔW as A and B, with what was given up: norms of the whole ΔW and of the part that is missing."""

    update: LowRank
    norm: float
    missing: float

    @property
    def error(self) -> float:
        """‖ΔW − BA‖ / ‖ΔW‖, both Frobenius; 0 for a ΔW of zeros."""
        return self.missing / self.norm if self.norm else 0.0

    @property
    def energy(self) -> float:
        """The share of the squared singular values that is kept."""
        return 1.0 - self.error**2


def from_product(
    b: Float[Tensor, "out n"],
    a: Float[Tensor, "n in"],
    *,
    rank: int | None = None,
    energy: float | None = None,
    embedding: bool = False,
) -> Truncated:
    """The best update of at most `rank` for ΔW = b a, or of the lowest rank that keeps this share of its energy.

    With neither, nothing is lost: only directions that b a does not have are dropped.
    """
    q_b, r_b = torch.linalg.qr(b.double())  # [out, m], [m, n] with m = min(out, n)
    q_a, r_a = torch.linalg.qr(a.double().T)  # [in, l], [l, n]
    u, s, vh = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    kept = _kept(s, rank, energy, ROUNDING)
    root = s[:kept].sqrt()
    update = _update((q_b @ u[:, :kept]) * root, root[:, None] * (vh[:kept] @ q_a.T), embedding)
    return Truncated(update, float(s.norm()), float(s[kept:].norm()))


def from_dense(
    delta: Float[Tensor, "rows columns"],
    *,
    rank: int | None = None,
    energy: float | None = None,
    embedding: bool = False,
) -> Truncated:
    """The same for a dense ΔW in the weight's layout.

    By the eigenvectors of its smaller Gram matrix, several times faster than a full SVD. Their singular values are
    right to about 1e-8 of the largest, below what fp32 factors hold; what is missing is measured on ΔW itself.
    """
    dense = (delta.T if embedding else delta).double()  # [out, in]
    wide = dense.shape[0] <= dense.shape[1]
    values, vectors = torch.linalg.eigh(dense @ dense.T if wide else dense.T @ dense)
    s = values.flip(0).clamp(min=0).sqrt()
    kept = _kept(s, rank, energy, GRAM_ROUNDING)
    basis = vectors.flip(1)[:, :kept]  # [min(out, in), kept]
    b, a = (basis, basis.T @ dense) if wide else (dense @ basis, basis.T)
    missing = float((dense - b @ a).norm())
    root = s[:kept].clamp(min=float(s[0]) * GRAM_ROUNDING or 1.0).sqrt()
    b, a = (b * root, a / root[:, None]) if wide else (b / root, a * root[:, None])  # of equal size
    return Truncated(_update(b, a, embedding), float(dense.norm()), missing)


def total_error(parts: Sequence[Truncated]) -> float:
    """Relative Frobenius error over all modules together."""
    norm = math.hypot(*(part.norm for part in parts))
    return math.hypot(*(part.missing for part in parts)) / norm if norm else 0.0


def _kept(s: Float[Tensor, " n"], rank: int | None, energy: float | None, rounding: float) -> int:
    """How many singular values stay: at least one, never more than there are above rounding."""
    whole = int((s > s[0] * rounding).sum())
    if energy is not None:
        shares = s.square().cumsum(0) / s.square().sum().clamp(min=1e-300)
        whole = min(whole, int((shares < energy).sum()) + 1)
    return max(1, whole if rank is None else min(rank, whole))


def _update(b: Float[Tensor, "out r"], a: Float[Tensor, "r in"], embedding: bool) -> LowRank:
    rank = a.shape[0]
    return LowRank(a.float().contiguous(), b.float().contiguous(), float(rank), embedding=embedding)
