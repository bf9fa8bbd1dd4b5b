"""A decoder's weights laid out for decoding: q, k and v as one matrix, all heads as one, all embeddings as one table.

`pack` copies them out of a MusicGen decoder in the arithmetic asked for, with adapters either merged in (fp32, exact,
no cost per step) or live (a few per cent per step, but strengths can change while playing). `borrow` (borrow.py) makes
the same structure around modules that stay where they are.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adapters.decode.engine import Packing
from adapters.decode.projections import Biased, Kind, Projection, projection
from adapters.decode.strengths import StrengthBank, Turnable
from adapters.family.musicgen.kv_cache import loops_pay
from adapters.low_rank import LowRank, merged_weight
from configs.errors import UserError
from data_prep.lm_spec import LMSpec


@dataclass
class Norm:
    """A layer norm's parameters."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __post_init__(self) -> None:
        self.shape = tuple(self.weight.shape)


@dataclass
class CrossWeights:
    """Cross-attention: queries per step, keys and values once per condition."""

    norm: Norm
    q: Projection
    kv: Projection
    out: Projection


@dataclass
class LayerWeights:
    """One decoder layer. `cross` is None where the condition is a prefix (melody)."""

    self_norm: Norm
    qkv: Projection
    out: Projection
    cross: CrossWeights | None
    ffn_norm: Norm
    fc1: Projection
    fc2: Projection


@dataclass
class DecoderWeights:
    """Everything that a step reads."""

    spec: LMSpec
    layers: list[LayerWeights]
    embeddings: Float[Tensor, "V D"]  # V = K · (card + 1)
    final_norm: Norm
    heads: Projection
    text: Projection
    melody: Projection | None
    """Of chroma; None where the model reads no melody, or reads it at its own width."""
    strengths: StrengthBank
    device: torch.device
    dtype: torch.dtype
    """Of activations."""
    bytes_per_step: int
    """Weight bytes that one step reads: what bounds its time."""
    capturable: bool = True
    """Whether a CUDA graph can hold a step; products that ask the host something on the way cannot be captured."""
    exact: bool = True
    """Whether products round nothing beyond `dtype`. If they do, the cache may as well be bf16 where that is faster."""
    copied: bool = True
    """Whether these weights are this engine's own; borrowed ones belong to a model that may be in training."""
    _positions: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = torch.arange(self.spec.n_codebooks, device=self.device) * (self.spec.card + 1)
        self.first_rows = first[:, None]  # [K, 1]: where each codebook's embeddings begin

    @property
    def cache_dtype(self) -> torch.dtype:
        """Of the key/value cache."""
        return self.dtype if self.exact or not loops_pay(self.spec, self.device) else torch.bfloat16

    def quietly(self) -> AbstractContextManager[None]:
        """No gradients; for weights of our own in inference mode, which saves a seventh of what calls cost."""
        return torch.inference_mode() if self.copied else torch.no_grad()

    def positions(self, n_steps: int) -> Float[Tensor, "{n_steps} D"]:
        """Sinusoids for that many steps; any length, the window that the model was trained on is no limit here."""
        have = max(self._positions, default=0)
        if have < n_steps:
            self._positions = {n_steps: sinusoids(n_steps, self.spec.hidden).to(self.device, self.dtype)}
            have = n_steps
        return self._positions[have][:n_steps]


def sinusoids(n_steps: int, width: int) -> Float[Tensor, "{n_steps} {width}"]:
    """MusicGen's positions (Vaswani et al. 2017): cosines then sines, frequencies from 1 down to 1/10000."""
    half = width // 2
    frequency = torch.exp(torch.arange(half).float() * -(math.log(10000) / (half - 1)))
    angle = torch.arange(n_steps).float()[:, None] * frequency[None]  # [S, D/2]
    return torch.cat([angle.cos(), angle.sin(), angle.new_zeros(n_steps, width % 2)], dim=1)


def pack(lm: nn.Module, spec: LMSpec, packing: Packing) -> DecoderWeights:
    """Copy the weights of a model that holds `decoder` (MusicgenForCausalLM) and `enc_to_dec_proj`.

    Works on a `MusicgenLM` and on transformers' whole model alike; neither is changed.

    Raises:
        UserError: an adapter touches a module that has no counterpart here.
    """
    return _Packer(lm, spec, packing).run()


class _Packer:
    def __init__(self, lm: nn.Module, spec: LMSpec, packing: Packing) -> None:
        self.spec = spec
        self.modules = dict(lm.named_modules())
        self.packing = packing
        merged = packing.merged_at is not None
        self.bank = StrengthBank([] if merged else list(packing.adapters), packing.device, packing.dtype)
        self.used: set[str] = set()
        self.bytes = 0

    def run(self) -> DecoderWeights:
        spec = self.spec
        layers = [self.layer(f"decoder.model.decoder.layers.{n}") for n in range(spec.layers)]
        heads = self.fused([f"decoder.lm_heads.{k}" for k in range(spec.n_codebooks)])
        bytes_per_step = self.bytes
        weights = DecoderWeights(
            spec=spec,
            layers=layers,
            embeddings=self.place(torch.cat([self.table(k) for k in range(spec.n_codebooks)])),
            final_norm=self.norm("decoder.model.decoder.layer_norm"),
            heads=heads,
            text=self.text(),
            melody=self.melody(),
            strengths=self.bank,
            device=self.packing.device,
            dtype=self.packing.dtype,
            bytes_per_step=bytes_per_step,
            exact=self.packing.kind in ("plain", "fp32"),
        )
        self.refuse_unused()
        return weights

    def layer(self, name: str) -> LayerWeights:
        attention, cross = f"{name}.self_attn", f"{name}.encoder_attn"
        return LayerWeights(
            self_norm=self.norm(f"{name}.self_attn_layer_norm"),
            qkv=self.fused([f"{attention}.{part}_proj" for part in "qkv"]),
            out=self.fused([f"{attention}.out_proj"]),
            cross=self.cross(cross) if cross in self.modules else None,
            ffn_norm=self.norm(f"{name}.final_layer_norm"),
            fc1=self.fused([f"{name}.fc1"]),
            fc2=self.fused([f"{name}.fc2"]),
        )

    def cross(self, name: str) -> CrossWeights:
        q, out = self.fused([f"{name}.q_proj"]), self.fused([f"{name}.out_proj"])
        before = self.bytes
        kv = self.fused([f"{name}.k_proj", f"{name}.v_proj"])
        self.bytes = before  # read once per condition, not per step
        return CrossWeights(self.norm(f"{name}_layer_norm"), q, kv, out)

    def text(self) -> Projection:
        linear: Any = self.modules.get("enc_to_dec_proj")
        if linear is None:
            return lambda states: states
        return Biased(self.fused(["enc_to_dec_proj"]), self.place(linear.bias))

    def melody(self) -> Projection | None:
        linear: Any = self.modules.get("audio_enc_to_dec_proj")
        # Twelve numbers an entry: nothing to be gained by fewer bits.
        return (
            None if linear is None else Biased(self.fused(["audio_enc_to_dec_proj"], "plain"), self.place(linear.bias))
        )

    def table(self, k: int) -> Tensor:
        name = f"decoder.model.decoder.embed_tokens.{k}"
        for updates in self.packing.adapters.values() if self.packing.merged_at is None else ():
            if name in updates:
                Turnable.of(updates[name], self.weight(name), name)  # says why it cannot be
        return self.merged(name, self.weight(name))

    def norm(self, name: str) -> Norm:
        module: Any = self.modules[name]
        return Norm(self.place(module.weight), self.place(module.bias), module.eps)

    def place(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to(self.packing.device, self.packing.dtype).clone()

    def fused(self, names: Sequence[str], kind: Kind | None = None) -> Projection:
        """The matrices of these modules stacked into one, with the adapters on them."""
        kind = kind or self.packing.kind
        parts = [self.weight(name) for name in names]
        weight = torch.cat([self.merged(name, part) for name, part in zip(names, parts, strict=True)])
        if kind == "plain":
            weight = weight.to(self.packing.device, self.packing.dtype)
        if kind == "int8_weights":
            weight = weight.to(self.packing.device)  # in fp32: it is rounded once
        inner = projection(kind, weight)
        self.bytes += weight.numel() * inner.bytes_per_weight
        if self.packing.merged_at is not None:
            return inner
        touched = [self.turnables(names, parts, updates) for updates in self.packing.adapters.values()]
        return self.bank.adapt(inner, [len(part) for part in parts], touched)

    def turnables(
        self, names: Sequence[str], parts: Sequence[Tensor], updates: Mapping[str, LowRank]
    ) -> dict[int, Turnable]:
        found = {part: name for part, name in enumerate(names) if name in updates}
        self.used.update(found.values())
        return {part: Turnable.of(updates[name], parts[part], name) for part, name in found.items()}

    def weight(self, name: str) -> Tensor:
        module: Any = self.modules[name]
        return module.weight.detach()

    def merged(self, name: str, weight: Tensor) -> Tensor:
        if self.packing.merged_at is None:
            return weight
        touching = [(self.packing.adapters[adapter].get(name), at) for adapter, at in self.packing.merged_at.items()]
        updates = [(update, strength) for update, strength in touching if update is not None]
        self.used.update([name] if updates else [])
        return merged_weight(weight, updates) if updates else weight

    def refuse_unused(self) -> None:
        wanted = {name for deltas in self.packing.adapters.values() for name in deltas}
        strangers = sorted(wanted - self.used)
        if strangers:
            raise UserError(
                f"the adapter changes {len(strangers)} modules that this base does not have, e.g. {strangers[0]}",
                fix="choose the base that the adapter was trained on; its adapter_config.json names it",
            )
