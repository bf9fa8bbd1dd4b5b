"""What is blended: adapters with weights, and the parts they have in one module."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adapters.low_rank import LowRank
from configs.errors import UserError

WeightOf = Callable[[str], Tensor]
"""A module's name → its weight in the base. Asked only for DoRA, whose ΔW depends on it."""


@dataclass(frozen=True)
class Source:
    """One adapter in a blend. A negative weight takes it away."""

    name: str
    updates: Mapping[str, LowRank]
    weight: float = 1.0


@dataclass(frozen=True)
class Part:
    """What one source does to one module. `number` is the source's place in the blend."""

    update: LowRank
    weight: float
    number: int
    base: Tensor | None = None

    def delta(self) -> Float[Tensor, "rows columns"]:
        """The unweighted ΔW in fp64, in the weight's layout."""
        return self.update.delta(self.base).double()

    def factors(self) -> tuple[Float[Tensor, "out r"], Float[Tensor, "r in"]]:
        """B with the scale in it, and A, in fp64: ΔW without its weight (an embedding's ΔW is their transpose)."""
        assert self.update.magnitude is None, "a DoRA update is no product of thin factors"
        return self.update.b.double() * self.update.scale, self.update.a.double()


def parts_of(module: str, sources: Sequence[Source], weight_of: WeightOf | None) -> list[Part]:
    """What each source does to this module; sources that leave it alone are left out.

    Raises:
        UserError: they disagree about its shape, or one is DoRA and there is no base to measure it on.
    """
    parts = []
    for number, source in enumerate(sources):
        if module not in source.updates:
            continue
        update = source.updates[module]
        base = None
        if update.magnitude is not None:
            if weight_of is None:
                raise _needs_base(source.name)
            base = weight_of(module)
        parts.append(Part(update, source.weight, number, base))
    first = parts[0].update
    for part in parts[1:]:
        if (part.update.weight_shape, part.update.embedding) != (first.weight_shape, first.embedding):
            raise UserError(
                f"The adapters disagree about {module}: one changes a weight of {list(first.weight_shape)}, "
                f"another one of {list(part.update.weight_shape)}.",
                where=f"{sources[parts[0].number].name} and {sources[part.number].name}",
                fix="Blend only adapters of the same base.",
            )
    return parts


def modules_of(sources: Sequence[Source]) -> list[str]:
    """Every module that a source changes, sorted."""
    return sorted({module for source in sources for module in source.updates})


def inner(left: Part, right: Part) -> float:
    """⟨ΔW, ΔW′⟩, the sum of their elementwise product, without making a plain one dense."""
    if left.base is not None or right.base is not None:
        return float((left.delta() * right.delta()).sum())
    (b, a), (b_, a_) = left.factors(), right.factors()
    return float(((b.T @ b_) * (a @ a_.T)).sum())  # tr(Aᵀ Bᵀ B′ A′)


def stacked(parts: Sequence[Part], weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Thin factors b [out, R] and a [R, in] of Σ weight · ΔW, with R the sum of the ranks."""
    factors = [part.factors() for part in parts]
    b = torch.cat([b * weight for (b, _), weight in zip(factors, weights, strict=True)], dim=1)
    return b, torch.cat([a for _, a in factors])


def _needs_base(name: str) -> UserError:
    return UserError(
        "A DoRA adapter changes the base in proportion to its weights, so blending it needs the base.",
        where=name,
        fix="Give --base: the hub id or folder of the base model.",
    )
