"""A trainable adapter on the LM: named target groups, attached through peft, started our way, read back as plain LoRA.

peft makes the layers (its names, its forward, its files). The values of A and B are drawn here: in fp32 and from the
seed and the module's name alone, so that an adapter starts the same on every device, in every precision of the base
and for every order of modules. They stay fp32 over half-precision and quantised bases.

PiSSA and OLoRA (`adapters.lora_start`) start from the base's own directions and take those out of the frozen weight.
What is handed out is relative to the ORIGINAL base all the same: ΔW = s·(BA − B₀A₀) is a LoRA of rank 2r,
[B, −B₀] [A; A₀].
"""

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adapters.added_conditions import attach as added_conditions
from adapters.added_conditions.frames import FrameCondition
from adapters.family.lm import LM
from adapters.family.port import family_named
from adapters.lora_start import draw_a, principal, seed_of
from adapters.low_rank import LowRank
from adapters.metadata import AddedInfo
from adapters.whole_weights.layers import whole_modules
from configs.errors import UserError
from configs.fields import nearest
from configs.train import LoraSettings

NAME = "default"
ADDED, WHOLE = "added_conditions", "whole"
"""How the names of weights begin that are no LoRA."""


def matched_modules(lm: LM, groups: Sequence[str]) -> list[str]:
    """Names of the modules that these groups reach in this model, in the model's order.

    Raises:
        UserError: a group that the model's family does not have, or no module at all.
    """
    targets = family_named(lm.spec.family).targets
    unknown = [group for group in groups if group not in targets]
    if unknown:
        near = nearest(unknown[0], targets)
        raise UserError(
            f"This base has no target group `{unknown[0]}`.",
            where="lora.targets",
            fix=(f"Did you mean `{near}`? " if near else "") + f"Choose from {', '.join(targets)}.",
        )
    wanted = re.compile("|".join(targets[group] for group in groups) or "(?!)")
    names = [name for name, _ in lm.named_modules() if name and wanted.fullmatch(name)]
    if not names:
        raise UserError(
            f"Nothing to train: the targets {', '.join(groups) or '(none)'} match no part of this model.",
            where="lora.targets",
            fix=f"Choose from {', '.join(targets)}; a model without a text projection needs another target as well.",
        )
    return names


@dataclass
class TrainableAdapter:
    """The adapter that is being trained on a model; the model holds it, this is the handle.

    `initial` is what PiSSA or OLoRA took out of the frozen weights, by module; empty for other starts.
    """

    lm: LM
    settings: LoraSettings
    layers: dict[str, Any]  # peft's layer of each adapted module
    initial: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    added: dict[str, FrameCondition] = field(default_factory=dict)
    """Conditions that it adds to the base's own, by kind; the model holds these too."""
    whole: dict[str, nn.Module] = field(default_factory=dict)
    """Layers that are new in a base that was moved: they learn whole, and there is no base without them."""

    @property
    def modules(self) -> list[str]:
        """Names of the adapted modules."""
        return list(self.layers)

    @property
    def n_trainable(self) -> int:
        """Numbers that learn."""
        return sum(parameter.numel() for parameter in self.parameters().values())

    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns, live, under the names it has in an adapter file without their prefix: `….lora_A.weight` …."""
        found: dict[str, nn.Parameter] = {}
        for module, layer in self.layers.items():
            found[f"{module}.lora_A.weight"] = layer.lora_A[NAME].weight
            found[f"{module}.lora_B.weight"] = layer.lora_B[NAME].weight
            if self.settings.dora:
                found[f"{module}.lora_magnitude_vector"] = layer.lora_magnitude_vector[NAME].weight
        for kind, module in self.added.items():
            found |= {f"{ADDED}.{kind}.{name}": parameter for name, parameter in module.named_parameters()}
        for module, layer in self.whole.items():
            found |= {f"{WHOLE}.{module}.{name}": parameter for name, parameter in layer.named_parameters()}
        return found

    @torch.no_grad()
    def start_from(self, directions: Float[Tensor, "n D_text"]) -> list[str]:
        """Let the first rows of A be these directions wherever text states enter; nothing changes yet, as B is zero.

        Returns the names of the modules; none for an adapter that does not reach the text projection.
        """
        names = family_named(self.lm.spec.family).targets
        pattern = re.compile(names.get("text_projection", "(?!)"))
        found = []
        for name, layer in self.layers.items():
            weight = layer.lora_A[NAME].weight
            if name in self.initial or not pattern.fullmatch(name) or weight.shape[1] != directions.shape[1]:
                continue
            n = min(len(weight) // 2, len(directions))
            weight[:n] = directions[:n].to(weight)
            found.append(name)
        return found

    def add_conditions(self, infos: Mapping[str, AddedInfo], seed: int = 0) -> None:
        """Let the adapter learn to follow conditions that the base does not have; nothing changes yet.

        Raises:
            UserError: this base cannot, or follows one of them already.
        """
        self.added = added_conditions.start(self.lm, infos, seed)
        added_conditions.attach(self.lm, self.added)
        for module in self.added.values():
            module.requires_grad_(True)

    def tensors(self) -> dict[str, Tensor]:
        """Copies of `parameters`, on the CPU, for a checkpoint: attach with the same seed, then `load_tensors`."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self.parameters().items()}

    @torch.no_grad()
    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put values of `tensors()` back.

        Raises:
            UserError: other names or shapes than this adapter has.
        """
        parameters = self.parameters()
        different = sorted(parameters.keys() ^ tensors.keys())
        different += [n for n in parameters.keys() & tensors.keys() if parameters[n].shape != tensors[n].shape]
        if different:
            raise UserError(
                f"These adapter weights are for other settings: {different[0]} differs, and {len(different) - 1} more.",
                fix="Go on with the rank, targets and kind of adapter that the run was started with.",
            )
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])

    def updates(self, tensors: dict[str, Tensor] | None = None) -> dict[str, LowRank]:
        """The adapter relative to the original base, by module: what is saved, merged and measured.

        `tensors` (names as in `parameters`) stand in for the live values, e.g. a running average of them.
        """
        values = self.tensors() if tensors is None else tensors
        return {module: self._update(module, values) for module in self.layers}

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The untuned base for a while, to compare with; whatever took part of its weights out puts it back."""
        with added_conditions.silenced(self.lm):
            if not self.initial:
                with disabled(self.lm):
                    yield
                return
            learnt = self.tensors()
            kept = {name: learnt[name] for name in learnt if name.startswith((ADDED, WHOLE))}
            self.load_tensors(self._at_start() | kept)
            try:
                yield
            finally:
                self.load_tensors(learnt)

    def _at_start(self) -> dict[str, Tensor]:
        values = {}
        for module, (a, b) in self.initial.items():
            values |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
            if self.settings.dora:
                values[f"{module}.lora_magnitude_vector"] = _row_norms(self.layers[module], self._scale * (b @ a))
        return values

    @property
    def _scale(self) -> float:
        return self.settings.alpha / (math.sqrt(self.settings.rank) if self.settings.rslora else self.settings.rank)

    def _update(self, module: str, values: dict[str, Tensor]) -> LowRank:
        a, b = values[f"{module}.lora_A.weight"], values[f"{module}.lora_B.weight"]
        alpha, rslora = self.settings.alpha, self.settings.rslora
        if module in self.initial:
            a0, b0 = self.initial[module]
            a, b = torch.cat([a, a0]), torch.cat([b, -b0], dim=1)  # [2r, in], [out, 2r]
            alpha *= math.sqrt(2) if rslora else 2
        return LowRank(a, b, alpha, rslora, values.get(f"{module}.lora_magnitude_vector"))


def attach(lm: LM, settings: LoraSettings, seed: int = 0) -> TrainableAdapter:
    """Put a trainable adapter on the model; at the start it changes nothing. The base stays frozen.

    Raises:
        UserError: the targets match nothing, or PiSSA or OLoRA on a quantised base.
    """
    whole = whole_modules(lm)
    names = [name for name in matched_modules(lm, settings.targets) if name not in whole]
    if not names:
        raise UserError(
            f"The targets {', '.join(settings.targets)} reach only what learns whole in a base that is moved.",
            where="lora.targets",
            fix="Choose attention or ffn as well.",
        )
    from_base = settings.init not in ("default", "gaussian")
    if from_base and (lm.is_loaded_in_8bit or lm.is_loaded_in_4bit):
        raise UserError(
            f"lora.init: {settings.init} changes the base's weights, which an 8-bit or 4-bit base cannot take.",
            fix="Set base_weights to bf16, fp16 or fp32, or lora.init to default.",
        )
    _inject(lm, names, settings.rank, settings.alpha, settings)
    layers = {name: lm.get_submodule(name) for name in names}
    adapter = TrainableAdapter(lm, settings, layers, whole=whole)
    for name, layer in adapter.layers.items():
        _start(adapter, name, layer, seed)
    lm.requires_grad_(False)
    for parameter in adapter.parameters().values():
        parameter.requires_grad_(True)
    lm.train(lm.training)
    return adapter


def attach_updates(lm: LM, updates: dict[str, LowRank], strength: float = 1.0) -> None:
    """Put a finished adapter on the model, frozen; `strength` multiplies ΔW exactly, DoRA's too.

    At rest DoRA is plain LoRA with rescaled rows plus a gain on the base's output (see `LowRank.gain`): no norm is
    computed while it runs. `detach` takes it off again.
    """
    from peft.utils.integrations import dequantize_module_weight

    gains = {name: torch.ones(update.b.shape[0]) for name, update in updates.items()}
    for name, update in updates.items():
        if update.magnitude is not None:
            weight = dequantize_module_weight(lm.get_submodule(name)).detach().float().cpu()
            gains[name] = update.gain(weight)
    # Scale, gain and strength are folded into B, so alpha equals r everywhere.
    ranks = {f"^{re.escape(name)}$": update.rank for name, update in updates.items()}
    _inject(lm, list(updates), 1, 1.0, None, rank_pattern=ranks, alpha_pattern=dict(ranks), inference_mode=True)
    for name, update in updates.items():
        layer: Any = lm.get_submodule(name)
        _set_resting(layer, update, update.b.float() * gains[name][:, None] * (update.scale * strength), lm.device)
        if update.magnitude is not None:
            turned = ((gains[name] - 1) * strength).to(lm.device)
            layer.gain_hook = layer.get_base_layer().register_forward_hook(_rows_turned(layer, turned))
    lm.requires_grad_(False)
    lm.train(lm.training)


def detach(lm: LM) -> None:
    """Take whatever adapter is on the model off; the base is as it was, unless PiSSA or OLoRA changed it."""
    for name, layer in _adapted_layers(lm).items():
        if hasattr(layer, "gain_hook"):
            layer.gain_hook.remove()
        parent, _, leaf = name.rpartition(".")
        setattr(lm.get_submodule(parent), leaf, layer.get_base_layer())
    lm.__dict__.pop("peft_config", None)


@contextmanager
def disabled(lm: LM) -> Iterator[None]:
    """The untuned base for a while, to compare with. For PiSSA and OLoRA: `TrainableAdapter.disabled`."""
    layers = list(_adapted_layers(lm).values())
    before = [[p.requires_grad for p in layer.parameters()] for layer in layers]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer, wanted in zip(layers, before, strict=True):
            layer.enable_adapters(True)
            for parameter, flag in zip(layer.parameters(), wanted, strict=True):
                parameter.requires_grad_(flag)


def _adapted_layers(lm: LM) -> dict[str, Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: module for name, module in lm.named_modules() if isinstance(module, BaseTunerLayer)}


def _inject(lm: LM, names: list[str], rank: int, alpha: float, settings: LoraSettings | None, **more) -> None:
    """Replace these modules by peft's LoRA layers, in place."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]
        target_modules=f"^({'|'.join(re.escape(name) for name in names)})$",
        lora_dropout=settings.dropout if settings else 0.0,
        use_rslora=settings.rslora if settings else False,
        use_dora=settings.dora if settings else False,
        **more,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
        inject_adapter_in_model(config, lm, adapter_name=NAME)


@torch.no_grad()
def _start(adapter: TrainableAdapter, name: str, layer: Any, seed: int) -> None:
    """First values of one module's A, B and magnitude, in fp32."""
    settings = adapter.settings
    a_module: Any = layer.lora_A[NAME]
    b_module: Any = layer.lora_B[NAME]
    scale = adapter._scale
    generator = torch.Generator().manual_seed(seed_of(seed, name))
    if settings.init in ("default", "gaussian"):
        a = draw_a(tuple(a_module.weight.shape), settings.init, settings.rank, generator)
        b = torch.zeros(b_module.weight.shape)
    else:
        weight: Tensor = layer.get_base_layer().weight.data
        a, b = principal(weight.float(), settings.rank, scale, settings.init, generator)
        weight -= (scale * (b @ a)).to(weight.dtype)
        adapter.initial[name] = (a.cpu().clone(), b.cpu().clone())
    device = a_module.weight.device
    a_module.weight.data, b_module.weight.data = a.to(device), b.to(device)
    if settings.dora:
        layer.lora_magnitude_vector[NAME].weight.data = _row_norms(layer, scale * (b @ a))


def _row_norms(layer: Any, product: Tensor) -> Tensor:
    from peft.utils.integrations import dequantize_module_weight

    weight = dequantize_module_weight(layer.get_base_layer()).detach().float()
    return (weight + product.to(weight.device)).norm(dim=1)


@torch.no_grad()
def _set_resting(layer: Any, update: LowRank, b: Tensor, device: torch.device) -> None:
    if update.embedding:
        layer.lora_embedding_A[NAME].data = update.a.float().to(device)
        layer.lora_embedding_B[NAME].data = b.to(device)
    else:
        layer.lora_A[NAME].weight.data = update.a.float().to(device)
        layer.lora_B[NAME].weight.data = b.to(device)


def _rows_turned(layer: Any, gain: Tensor):
    """DoRA's gain on the base's own output, its bias left out; silent while the adapter is disabled."""

    def hook(module: nn.Module, _: Any, out: Tensor) -> Tensor:
        if layer.disable_adapters:
            return out
        bias: Any = getattr(module, "bias", None)
        return out + (out if bias is None else out - bias) * gain.to(out.dtype)

    return hook
