"""Added conditions on a model: the model then lists them among its kinds, and its decoder reads them.

Each is added to the input of the steps, or stands before the first as a prefix.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adapters.added_conditions.frames import FrameCodes, FrameCondition, FrameFeatures, build
from adapters.added_conditions.prefix import Positions, Prefix, joined, prefix_of
from adapters.conditions import Condition, Conditions
from adapters.family.lm import LM
from adapters.lora_start import seed_of
from adapters.metadata import AddedInfo
from adapters.pattern import Pattern
from configs.errors import UserError
from data_prep.condition_sources.added import added_kinds


class AddedConditions(nn.Module):
    """Everything that an adapter lets a decoder read, by kind; `enabled` off leaves the base alone."""

    def __init__(self, kinds: Mapping[str, FrameCondition]) -> None:
        super().__init__()
        self.kinds = nn.ModuleDict(kinds)
        self.enabled = True

    def forward(self, conditions: Conditions, pattern: Pattern, n_steps: int) -> Float[Tensor, "B {n_steps} D"] | None:
        """What is added to the input of the first steps, summed over kinds; None where no row has any."""
        total: Tensor | None = None
        for module, given in self._given(conditions):
            if not module.stride:
                part = module(given, pattern, n_steps)
                total = part if total is None else total + part
        return total

    def prefix(self, conditions: Conditions, pattern: Pattern, positions: Positions) -> Prefix | None:
        """What stands before the first step, of all kinds; None where there is none."""
        given = [(module, held) for module, held in self._given(conditions) if module.stride]
        return joined([prefix_of(module, held, pattern, positions) for module, held in given])

    def places_in_front(self, n_frames: int) -> int:
        """The longest prefix for so many frames."""
        kinds = [module for module in self.kinds.values() if isinstance(module, FrameCondition) and module.stride]
        return sum(-(-(n_frames + module.kind.lookahead) // module.stride) for module in kinds)

    def _given(self, conditions: Conditions) -> list[tuple[FrameCondition, Condition]]:
        found = []
        for name, module in self.kinds.items() if self.enabled else ():
            assert isinstance(module, FrameCondition)
            if (given := conditions.get(name)) is not None:
                found.append((module, given))
        return found

    def set_strength(self, strength: float) -> None:
        """How much of it is added, as an adapter's strength multiplies its ΔW."""
        for module in self.kinds.values():
            assert isinstance(module, FrameCondition)
            module.strength = strength


def start(lm: LM, infos: Mapping[str, AddedInfo], seed: int) -> dict[str, FrameCondition]:
    """New modules that change nothing yet.

    Raises:
        UserError: this base's input cannot be added to.
    """
    tables = lm.code_tables()
    if tables is None:
        raise UserError(
            f"A base of the family {lm.spec.family} cannot learn to follow {', '.join(infos)}.",
            fix="Train on a MusicGen base (text to music), or on the starter.",
        )
    made = {name: build(info, lm.n_codebooks, lm.card, lm.spec.hidden) for name, info in infos.items()}
    for name, module in made.items():
        if isinstance(module, FrameCodes):
            module.start_from(tables)
        elif isinstance(module, FrameFeatures):
            module.start(seed_of(seed, name))
    return made


def attach(lm: LM, modules: Mapping[str, FrameCondition]) -> AddedConditions:
    """Put modules on a model, on its device, in fp32; the model's description lists their kinds from here on.

    Raises:
        UserError: the base follows one of these kinds by itself, or its input cannot be added to.
    """
    doubled = [name for name in modules if lm.spec.has(name)]
    if doubled:
        raise UserError(f"This base follows {doubled[0]} by itself.", fix="Use it without an adapter that adds it.")
    if lm.code_tables() is None:
        raise UserError(f"Nothing can be added to the input of a base of the family {lm.spec.family}.")
    spec = lm.spec
    known = added_kinds(spec)
    for name, module in modules.items():
        if name not in known:
            raise UserError(f"Nobody here knows how to make the condition {name} that this adapter follows.")
        module.kind = replace(module.kind, made_with=known[name].made_with)
        made_for = (module.out.out_features, getattr(module, "card", spec.card))
        same = (module.kind.values, module.kind.width) == (known[name].values, known[name].width)
        if made_for != (spec.hidden, spec.card) or not same:
            raise UserError(f"What this adapter adds for {name} was made for a base of other sizes.")
    added = AddedConditions(modules).to(lm.device)
    lm.added = added
    lm.spec = replace(lm.spec, conditions=(*lm.spec.conditions, *(module.kind for module in modules.values())))
    return added


@contextmanager
def silenced(lm: LM) -> Iterator[None]:
    """Nothing is added for a while."""
    added = lm.added
    before = added.enabled if added is not None else False
    if added is not None:
        added.enabled = False
    try:
        yield
    finally:
        if added is not None:
            added.enabled = before


def tensors_of(modules: Mapping[str, FrameCondition]) -> dict[str, Tensor]:
    """Copies on the CPU by name, `context.out.weight`, as they are written to a file."""
    return {
        f"{kind}.{name}": tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
        for kind, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
