"""The slow engine that serves every family: the whole sequence through the model for each column.

It asks nothing of a model but teacher-forced logits, so it is what a family starts with, and what the fast engines are
compared with. Where rows follow several conditions at once, the logits of each are mixed by their shares.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from adapters.conditions import Condition, Conditions
from adapters.decode.engine import Blend, Engine, Packing, Steps
from adapters.decode.log_likelihood import of_tape
from adapters.decode.sampling import Knobs, guide
from adapters.decode.strengths import Adapted, StrengthBank, Turnable
from adapters.decode.tape import Tape
from adapters.family.lm import LM
from adapters.low_rank import LowRank, merged_weight
from configs.errors import UserError
from data_prep.lm_spec import TEXT

AnyLM = TypeVar("AnyLM", bound=LM)


class WholeSequence(Engine[Conditions]):
    """Any LM, ready to play slowly."""

    def __init__(self, lm: LM, strengths: StrengthBank | None = None) -> None:
        self.lm = lm
        self.spec, self.pattern = lm.spec, lm.pattern
        self.device, self.dtype = lm.device, lm.dtype
        self.strengths = strengths or StrengthBank([], lm.device, lm.dtype)
        self.bytes_per_step = sum(p.numel() * p.element_size() for p in lm.parameters())

    @classmethod
    def pack(cls, lm: LM, packing: Packing) -> "WholeSequence":
        """The model itself, moved, with the adapters merged into its weights or as hooks on its linear layers.

        Raises:
            UserError: an adapter touches a module that the model does not have, or an arithmetic only packed weights
                have.
        """
        if packing.kind not in ("plain", "fp32"):
            raise UserError(f"{packing.kind} weights are not to be had for this model.", fix="use --precision fp32")
        return cls(*with_adapters(lm, packing))

    def quietly(self) -> AbstractContextManager[None]:
        """No gradients."""
        return torch.no_grad()

    def encode(self, conditions: Conditions) -> Conditions:
        """As they are."""
        return conditions.to(self.device)

    def start(self, tape: Tape, knobs: Knobs) -> "WholeSequenceSteps":
        """Begin a window."""
        return WholeSequenceSteps(self.lm, tape, knobs)

    def log_likelihoods(self, codes: Int[Tensor, "K T"], conditions: Conditions) -> Float[Tensor, "K T"]:
        """In one pass."""
        if self.lm.levels_at_once == self.spec.n_codebooks:
            where = conditions.to(self.device)
            return of_tape(self.pattern, self.spec.special, codes, lambda c: self.lm(c.to(self.device), where))
        n_frames = torch.tensor([codes.shape[1]], device=self.device)
        inputs, labels = self.lm.inputs_and_labels(codes[None].to(self.device), n_frames)
        with torch.no_grad():
            shown = self.lm(inputs, conditions.to(self.device)).float().log_softmax(-1)
        return shown[0].gather(-1, labels[0][..., None]).squeeze(-1).cpu()


class WholeSequenceSteps(Steps[Conditions]):
    """One window; its state is the tape itself."""

    def __init__(self, lm: LM, tape: Tape, knobs: Knobs) -> None:
        self.lm, self.tape, self.knobs = lm, tape, knobs
        self.blend: Blend[Conditions] = Blend([])
        self.at = 0

    def restart(self) -> None:
        """Nothing is kept."""
        self.at = 0

    def follow(self, blend: Blend[Conditions]) -> None:
        """Other conditions."""
        self.blend = blend

    def keep(self, rows: Sequence[int]) -> None:
        """Their conditions go on."""
        index = torch.tensor(rows, device=self.tape.device)
        shares = self.blend.shares
        self.blend = Blend(
            [_only(part, index) for part in self.blend.parts],
            None if shares is None else shares.index_select(1, index.to(shares.device)),
        )

    def sampling_changed(self) -> None:
        """Guidance is looked at in every step."""

    def advance(self, until: int) -> None:
        """Column by column; the known ones are drawn over by themselves."""
        self.at = max(self.at, self.tape.n_known - 1)
        while self.at < min(until, self.tape.n_columns - 1):
            levels = self.lm.levels_at_once
            begun = self.tape.tokens.new_empty(self.tape.n_rows, 0)
            for first in range(0, self.lm.n_codebooks, levels):
                drawn = self.tape.draw(self.at, self._logits(begun), first)
                begun = torch.cat([begun, drawn], dim=1)
            self.at += 1

    def _logits(self, begun: Int[Tensor, "B k"]) -> Float[Tensor, "B n card"]:
        columns = self.tape.tokens[:, :, : self.at + 1]
        shown = [self.lm.next_logits(columns, begun, part).float() for part in self.blend.parts]
        mixed = shown[0]
        if self.blend.shares is not None:
            shares = self.blend.shares.to(mixed)[..., None]  # [parts, B, 1, 1]
            mixed = torch.stack([share * part for share, part in zip(shares, shown, strict=True)]).sum(0)
        passes, first = self.knobs.sampling.passes, self.blend.parts[0]
        everyone = torch.ones(self.tape.n_rows, dtype=torch.bool, device=self.tape.device)
        without = [first.dropped(everyone, {TEXT}), first.dropped(everyone)][3 - passes :]
        shown = [mixed, *(self.lm.next_logits(columns, begun, part).float() for part in without)]
        return guide(torch.cat(shown), self.knobs, self.tape.n_rows, passes)


def with_adapters(lm: AnyLM, packing: Packing) -> tuple[AnyLM, StrengthBank]:
    """The model itself, moved, with the adapters merged into its weights or as hooks on its linear layers.

    Raises:
        UserError: an adapter touches a module that the model does not have.
    """
    strengths = StrengthBank(
        [] if packing.merged_at is not None else list(packing.adapters), packing.device, packing.dtype
    )
    if packing.merged_at is not None:
        _merge(lm, packing.adapters, packing.merged_at)
    lm = lm.to(packing.device, packing.dtype)  # merged first: rounded once
    if packing.merged_at is None:
        _hook(lm, packing.adapters, strengths)
    return lm, strengths


def _only(conditions: Conditions, rows: Tensor) -> Conditions:
    return Conditions(
        {
            name: Condition(held.values.index_select(0, rows), held.mask.index_select(0, rows))
            for name, held in conditions.by_kind.items()
        }
    )


def _module(lm: LM, name: str) -> Any:
    try:
        return lm.get_submodule(name)
    except AttributeError as error:
        raise UserError(
            f"the adapter changes a module that this base does not have: {name}",
            fix="choose the base that the adapter was trained on; its adapter_config.json names it",
        ) from error


@torch.no_grad()
def _merge(lm: LM, adapters: Mapping[str, Mapping[str, LowRank]], strengths: Mapping[str, float]) -> None:
    for name in _touched(adapters):
        weight: Tensor = _module(lm, name).weight
        touching = [(updates[name], strengths[adapter]) for adapter, updates in adapters.items() if name in updates]
        weight.copy_(merged_weight(weight.cpu(), touching))


def _hook(lm: LM, adapters: Mapping[str, Mapping[str, LowRank]], strengths: StrengthBank) -> None:
    """Let every adapted linear layer add its adapters, each at the strength it has at that moment."""
    for name in _touched(adapters):
        layer = _module(lm, name)
        touched = [
            {0: Turnable.of(updates[name], layer.weight.detach().float().cpu(), name)} if name in updates else {}
            for updates in adapters.values()
        ]
        adapted = strengths.adapt(layer, [layer.weight.shape[0]], touched)
        layer.register_forward_hook(_adding(adapted))


def _touched(adapters: Mapping[str, Mapping[str, LowRank]]) -> list[str]:
    return sorted({module for updates in adapters.values() for module in updates})


def _adding(adapted: Any):
    assert isinstance(adapted, Adapted)

    def hook(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        bias: Any = getattr(layer, "bias", None)
        plain = (out if bias is None else out - bias).flatten(0, -2)  # [M, D_out]
        y = adapted.added(given[0].flatten(0, -2), plain).view(out.shape)
        return y if bias is None else y + bias

    return hook
