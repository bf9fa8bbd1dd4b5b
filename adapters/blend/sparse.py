"""Blends that choose among single weights: TIES, DARE and magnitude pruning, on dense ΔW of one module.

The papers trim over a whole model's ΔW at once; here each module is trimmed alone, so that one module is in memory at a
time. A sparse ΔW has full rank: writing it as A and B of a chosen rank costs what the report says.
"""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor


def trim(delta: Float[Tensor, "rows columns"], density: float) -> Float[Tensor, "rows columns"]:
    """Keep the share `density` of the values that are largest in size, at least one; the others become zero."""
    kept = max(1, round(density * delta.numel()))
    chosen = delta.abs().flatten().topk(kept).indices
    out = torch.zeros_like(delta).flatten()
    out[chosen] = delta.flatten()[chosen]
    return out.view_as(delta)


def drop(
    delta: Float[Tensor, "rows columns"], density: float, generator: torch.Generator
) -> Float[Tensor, "rows columns"]:
    """Keep each value with probability `density` and divide it by that: DARE (Yu et al. 2024, arXiv:2311.03099, eq. 1).

    Its p is 1 − density. The mean over draws is the ΔW itself.
    """
    kept = torch.rand(delta.shape, generator=generator, dtype=torch.float64) < density
    return delta * kept / density


def elect(deltas: Float[Tensor, "n rows columns"]) -> Float[Tensor, "rows columns"]:
    """TIES after trimming (Yadav et al. 2023, arXiv:2306.01708, algorithm 1): elect a sign, average those that have it.

    The sign is that of the sum, so larger values count more. The mean is over the sources whose value is not zero and
    has that sign. Where the sum is exactly zero, the result is zero.
    """
    sign = deltas.sum(dim=0).sign()  # [rows, columns]
    agreeing = (deltas.sign() == sign) & (sign != 0)  # [n, rows, columns]
    count = agreeing.sum(dim=0)
    return (deltas * agreeing).sum(dim=0) / count.clamp(min=1)


def draw_of(seed: int, number: int, module: str) -> torch.Generator:
    """The generator for one source in one module: neither the order of the work nor other modules change it."""
    digest = hashlib.sha256(f"{seed}:{number}:{module}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
