"""The same structure as `weights.pack` around modules that stay where they are: nothing is copied, nothing changes.

For a model that is in memory for another reason, above all one in training: its adapters, whatever peft made of them,
and its 8-bit or 4-bit layers run as they are. Slower than packed weights, but free of memory.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adapters.decode.cuda_graphs import can_be_captured
from adapters.decode.projections import Projection
from adapters.decode.strengths import StrengthBank
from adapters.family.musicgen.weights import CrossWeights, DecoderWeights, LayerWeights, Norm
from data_prep.lm_spec import LMSpec


class SideBySide:
    """Several modules on one input, their outputs behind one another."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = modules

    def __call__(self, x: Tensor) -> Tensor:
        """All products."""
        return torch.cat([module(x) for module in self.modules], dim=-1)


def borrow(lm: nn.Module, spec: LMSpec) -> DecoderWeights:
    """Weights that read a model's own modules. `lm` may be wrapped (peft, accelerate): the parts are found inside."""
    causal = _find(lm, "decoder", "ForCausalLM")
    stack = causal.model.decoder
    norm = stack.layer_norm.weight
    return DecoderWeights(
        spec=spec,
        layers=[_layer(layer) for layer in stack.layers],
        embeddings=_table(stack.embed_tokens).to(norm.dtype),
        final_norm=_norm(stack.layer_norm),
        heads=SideBySide(list(causal.lm_heads)),
        text=_named(lm, "enc_to_dec_proj") or (lambda states: states),
        melody=_named(lm, "audio_enc_to_dec_proj"),
        strengths=StrengthBank([], norm.device, norm.dtype),
        device=norm.device,
        dtype=norm.dtype,
        bytes_per_step=sum(p.numel() * p.element_size() for p in stack.layers.parameters()),
        copied=False,
        capturable=can_be_captured(lm),
    )


def _find(lm: nn.Module, name: str, kind: str) -> Any:
    for path, module in lm.named_modules():
        if path.split(".")[-1] == name and type(module).__name__.endswith(kind):
            return module
    raise ValueError(f"no {kind} called {name} in {type(lm).__name__}")


def _named(lm: nn.Module, name: str) -> Projection | None:
    return next((module for path, module in lm.named_modules() if path.split(".")[-1] == name), None)


def _layer(layer: Any) -> LayerWeights:
    own = layer.self_attn
    return LayerWeights(
        self_norm=_norm(layer.self_attn_layer_norm),
        qkv=SideBySide([own.q_proj, own.k_proj, own.v_proj]),
        out=own.out_proj,
        cross=_cross(layer) if hasattr(layer, "encoder_attn") else None,
        ffn_norm=_norm(layer.final_layer_norm),
        fc1=layer.fc1,
        fc2=layer.fc2,
    )


def _cross(layer: Any) -> CrossWeights:
    cross = layer.encoder_attn
    return CrossWeights(
        norm=_norm(layer.encoder_attn_layer_norm),
        q=cross.q_proj,
        kv=SideBySide([cross.k_proj, cross.v_proj]),
        out=cross.out_proj,
    )


def _norm(module: Any) -> Norm:
    return Norm(module.weight, module.bias, module.eps)


def _table(embeddings: Any) -> Tensor:
    """All codebooks' embeddings in one table: the one copy that is made, half a per cent of a small model."""
    return torch.cat([table.weight for table in embeddings])
