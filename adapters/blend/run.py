"""Blend adapters module by module: the ways to do it, and what comes out with its error."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from adapters.blend import sparse
from adapters.blend.slerp import slerp_weights
from adapters.blend.sources import Part, Source, WeightOf, modules_of, parts_of, stacked
from adapters.blend.truncate import Truncated, from_dense, from_product, total_error
from adapters.low_rank import LowRank
from configs.errors import UserError

Method = Literal["concatenate", "svd", "task-arithmetic", "ties", "dare", "dare-ties", "prune", "slerp"]
METHODS: tuple[Method, ...] = get_args(Method)
DENSITY: dict[Method, float] = {"ties": 0.2, "dare": 0.5, "dare-ties": 0.5, "prune": 0.5}
"""What share of ΔW's values stays unless told: TIES's paper keeps 20 %; the others have no one figure, half is mild."""


@dataclass(frozen=True)
class Recipe:
    """How to blend. `density` is for the methods in DENSITY, `scale` multiplies the result (the papers' λ)."""

    method: Method = "concatenate"
    rank: int | None = None
    energy: float | None = None
    density: float | None = None
    scale: float = 1.0
    seed: int = 0

    @property
    def kept(self) -> float:
        """The share of values that stays."""
        return DENSITY[self.method] if self.density is None else self.density


@dataclass(frozen=True)
class Blend:
    """One adapter made of several. `modules` has each module's update with its norm and error."""

    modules: dict[str, Truncated]

    @property
    def updates(self) -> dict[str, LowRank]:
        """The adapter."""
        return {module: part.update for module, part in self.modules.items()}

    @property
    def error(self) -> float:
        """What is missing of the ΔW that the method asks for: relative Frobenius norm over all modules."""
        return total_error(list(self.modules.values()))

    @property
    def energy(self) -> float:
        """The share of its squared norm that is there."""
        return 1.0 - self.error**2


def blend(sources: Sequence[Source], recipe: Recipe, weight_of: WeightOf | None = None) -> Blend:
    """Combine the sources' ΔW and write the result as A and B of every module.

    `concatenate`, `task-arithmetic` and `slerp` are exact, with ranks added, unless a rank or an energy is asked for.
    `weight_of` gives the base's weights, which DoRA sources need.

    Raises:
        UserError: a recipe that cannot be, sources of different shapes, or DoRA where the result must be exact.
    """
    check(sources, recipe)
    fraction = _fraction(sources) if recipe.method == "slerp" else None
    modules = {}
    for module in modules_of(sources):
        modules[module] = _blend_module(module, parts_of(module, sources, weight_of), recipe, fraction)
    return Blend(modules)


def check(sources: Sequence[Source], recipe: Recipe) -> None:
    """Refuse what has no meaning.

    Raises:
        UserError: names it, with all other problems of the recipe.
    """
    problems = list(_problems(sources, recipe))
    if problems:
        raise UserError("This blend cannot be made:\n  " + "\n  ".join(problems), fix="See `woodshed blend --help`.")


def _problems(sources: Sequence[Source], recipe: Recipe) -> Iterable[str]:
    method = recipe.method
    if not sources or not all(source.updates for source in sources):
        yield "there is no adapter, or an adapter that changes nothing"
    if recipe.rank is not None and recipe.rank < 1:
        yield f"rank {recipe.rank}: it is at least 1"
    if recipe.energy is not None and not 0 < recipe.energy <= 1:
        yield f"energy {recipe.energy}: it is a share, above 0 and at most 1"
    if recipe.rank is not None and recipe.energy is not None:
        yield "rank and energy: give one of them"
    if recipe.density is not None and method not in DENSITY:
        yield f"density: {method} keeps every value; it is for {', '.join(DENSITY)}"
    elif method in DENSITY and not 0 < recipe.kept <= 1:
        yield f"density {recipe.kept}: it is a share, above 0 and at most 1"
    if method == "svd" and recipe.rank is None and recipe.energy is None:
        yield "svd needs a rank or an energy"
    if method == "slerp" and not _between_two(sources):
        yield "slerp goes between exactly two adapters, with weights that are not negative and not both zero"
    exact = recipe.rank is None and recipe.energy is None
    dora = [s.name for s in sources if any(update.magnitude is not None for update in s.updates.values())]
    if exact and dora:
        yield f"{', '.join(dora)} is DoRA, whose ΔW has full rank: nothing of low rank equals it, so give a rank"


def _between_two(sources: Sequence[Source]) -> bool:
    weights = [source.weight for source in sources]
    return len(weights) == 2 and min(weights) >= 0 and sum(weights) > 0


def _fraction(sources: Sequence[Source]) -> float:
    first, second = (source.weight for source in sources)
    return second / (first + second)


def _blend_module(module: str, parts: list[Part], recipe: Recipe, fraction: float | None) -> Truncated:
    embedding, rank, energy = parts[0].update.embedding, recipe.rank, recipe.energy
    exact = rank is None and energy is None
    if recipe.method in DENSITY:
        rank = sum(part.update.rank for part in parts) if exact else rank
        chosen = recipe.scale * _chosen(module, parts, recipe)
        return from_dense(chosen, rank=rank, energy=energy, embedding=embedding)
    weights = [part.weight for part in parts] if fraction is None else slerp_weights(parts, fraction)
    weights = [recipe.scale * weight for weight in weights]
    if any(part.base is not None for part in parts):
        deltas = torch.stack([weight * part.delta() for weight, part in zip(weights, parts, strict=True)])
        return from_dense(deltas.sum(dim=0), rank=rank, energy=energy, embedding=embedding)
    b, a = stacked(parts, weights)
    return _as_it_is(b, a, embedding) if exact else from_product(b, a, rank=rank, energy=energy, embedding=embedding)


def _chosen(module: str, parts: list[Part], recipe: Recipe) -> Float[Tensor, "rows columns"]:
    """The dense ΔW of the sparse methods. Weights multiply what was trimmed or dropped, before any vote."""
    deltas = []
    for part in parts:
        delta = part.delta()
        if recipe.method in ("ties", "prune"):
            delta = sparse.trim(delta, recipe.kept)
        else:
            delta = sparse.drop(delta, recipe.kept, sparse.draw_of(recipe.seed, part.number, module))
        deltas.append(part.weight * delta)
    together = torch.stack(deltas)  # [n, rows, columns]
    return sparse.elect(together) if recipe.method in ("ties", "dare-ties") else together.sum(dim=0)


def _as_it_is(b: Float[Tensor, "out r"], a: Float[Tensor, "r in"], embedding: bool) -> Truncated:
    update = LowRank(a.float(), b.float(), float(a.shape[0]), embedding=embedding)
    return Truncated(update, update.norm(), 0.0)
