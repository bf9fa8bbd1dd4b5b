"""Which adapters are played together: what each is called, and what at most one of them may bring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from adapters.decode.strength_schedule import StrengthSchedule
from adapters.family.lm import LM
from configs.errors import UserError

if TYPE_CHECKING:
    from adapters.adapter_files import Adapter
    from adapters.added_conditions.attach import AddedConditions


@dataclass(frozen=True)
class AdapterSpec:
    """An adapter folder, how strong it sounds over time, and what it is called in messages and tags."""

    path: Path
    strength: StrengthSchedule = field(default_factory=lambda: StrengthSchedule.constant(1.0))

    @property
    def label(self) -> str:
        """For people: the folder's name, and its parent's where that says nothing (`runs/mine/adapter`)."""
        path = self.path.resolve()
        return path.parent.name if path.name == "adapter" and path.parent.name else path.name


def labelled(adapters: Sequence[AdapterSpec]) -> dict[str, AdapterSpec]:
    """Adapters by label; the same label twice gets a number."""
    named: dict[str, AdapterSpec] = {}
    for spec in adapters:
        name, number = spec.label, 2
        while name in named:
            name, number = f"{spec.label}-{number}", number + 1
        named[name] = spec
    return named


def whole_weights_of(adapters: "Sequence[Adapter]") -> dict[str, Tensor] | None:
    """The weights of what is new in the base; one adapter at most may bring them.

    Raises:
        UserError: two do.
    """
    bringing = [adapter for adapter in adapters if adapter.whole]
    if len(bringing) > 1:
        raise UserError(
            f"{bringing[0].label} and {bringing[1].label} both bring weights for another codec or text encoder, and "
            "there is one place for them",
            fix="play them one after the other",
        )
    return bringing[0].whole if bringing else None


def attach_added(
    lm: LM, adapters: "Mapping[str, Adapter]", named: Mapping[str, AdapterSpec]
) -> "dict[str, AddedConditions]":
    """The conditions that adapters add to the base's own, on the model; at most one adapter may add any.

    Raises:
        UserError: two adapters add conditions.
    """
    with_conditions = [name for name, adapter in adapters.items() if adapter.added]
    if len(with_conditions) > 1:
        raise UserError(
            f"{with_conditions[0]} and {with_conditions[1]} both follow conditions of their own: only one can",
            fix="blend them first (woodshed blend ONE OTHER --out BOTH), or play them one after the other: what the "
            "first has played can be the second one's context track",
        )
    if not with_conditions:
        return {}
    from adapters.added_conditions.attach import attach

    added = attach(lm, adapters[with_conditions[0]].added)
    added.set_strength(named[with_conditions[0]].strength.at(0.0))
    return {with_conditions[0]: added}
