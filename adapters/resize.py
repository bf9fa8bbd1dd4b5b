"""Another rank for a finished adapter: lower at a cost that is told, or higher at none.

DoRA keeps its magnitudes: its direction is resized, so no base is needed, and the error is that of scale · B A alone.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from adapters.blend.truncate import Truncated, from_product
from adapters.low_rank import LowRank


def resize(
    updates: Mapping[str, LowRank], *, rank: int | None = None, energy: float | None = None, seed: int = 0
) -> dict[str, Truncated]:
    """Every module at this rank, or at the lowest rank that keeps this share of its energy.

    A module cannot have a rank above its smaller side. New directions start as training would start them: A random from
    `seed`, B zero, so ΔW is as before.

    Raises:
        ValueError: neither or both of rank and energy, or one that is out of range.
    """
    if (rank is None) == (energy is None) or not (rank is None or rank >= 1) or not (energy is None or 0 < energy <= 1):
        raise ValueError(f"one of rank (at least 1) and energy (above 0, at most 1), got {rank} and {energy}")
    return {module: _resized(module, update, rank, energy, seed) for module, update in updates.items()}


def _resized(module: str, update: LowRank, rank: int | None, energy: float | None, seed: int) -> Truncated:
    if rank is not None and rank >= update.rank:
        wanted = min(rank, *update.b.shape[:1], *update.a.shape[1:])
        grown = _grown(update, wanted - update.rank, seed, module) if wanted > update.rank else update
        return Truncated(grown, update.norm(), 0.0)
    b = update.b.double() * update.scale
    reduced = from_product(b, update.a, rank=rank, energy=energy, embedding=update.embedding)
    return replace(reduced, update=replace(reduced.update, magnitude=update.magnitude))


def _grown(update: LowRank, more: int, seed: int, module: str) -> LowRank:
    rank = update.rank + more
    a = torch.cat([update.a, _fresh(more, update.a, seed, module)])  # [rank, in]
    b = torch.cat([update.b, update.b.new_zeros(update.b.shape[0], more)], dim=1)  # [out, rank]
    alpha = update.scale * (math.sqrt(rank) if update.rslora else rank)
    return replace(update, a=a, b=b, alpha=alpha)


def _fresh(rows: int, like: Tensor, seed: int, module: str) -> Tensor:
    """Uniform within ±1/√in, as peft starts A, but of this A's own size where it is larger or smaller than that."""
    digest = hashlib.sha256(f"{seed}:{module}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    drawn = torch.empty(rows, like.shape[1]).uniform_(-1, 1, generator=generator) * math.sqrt(3)
    size = float(like.float().square().mean().sqrt()) or 1 / math.sqrt(3 * like.shape[1])
    return (drawn * size).to(like)
