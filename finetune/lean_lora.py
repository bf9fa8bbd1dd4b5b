"""A lighter forward pass for peft's LoRA layers: same adapter, same files, same gradients, less memory and time.

peft computes `result + B(A(dropout(x))) * scaling` in the type of A and B. With fp32 adapters on a bf16 base that
makes an fp32 copy of x for every projection (three of the same one for q, k and v) and fp32 intermediates of full
width, and much of it is kept for the backward pass. Here the small A and B are cast to the type of the activations
instead, and the update is added into the base's output by one scaled matrix product: what is kept is x itself (one
tensor, shared by q, k and v) and the r-wide A(x). The parameters stay fp32 and so do their gradients.

bitsandbytes' 8-bit product holds on to its input until the backward pass, which does not need it; and it does so in a
way that recomputation cannot see, so that checkpointing would free next to nothing. Every 8-bit layer, adapted or
not, gets a backward of its own here: the same numbers, from the weight alone.

What it does not cover goes through peft's own forward, unchanged: dropout above 0 while training, DoRA and other
variants, biases on B, merged or disabled adapters, per-sample adapter names, autocast.
"""

import sys
import types
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adapters.wrapped_forward import unwrap, wrap

NAME = "lean LoRA"


def install(model: nn.Module) -> int:
    """Give every LoRA layer of the model on a plain, 8-bit or 4-bit linear layer the lean forward; returns how many."""
    layers = [module for module in model.modules() if _is_lora_linear(module)]
    for layer in layers:
        wrap(layer, NAME, lambda layer, plain: types.MethodType(_lean_forward, layer))
    for layer in _frozen_8bit_layers(model):
        wrap(layer, NAME, lambda layer, plain: types.MethodType(_frozen_8bit_forward, layer))
    return len(layers)


def remove(model: nn.Module) -> int:
    """Put peft's and bitsandbytes' own forward back; returns how many LoRA layers had the lean one."""
    for layer in _frozen_8bit_layers(model):
        unwrap(layer, NAME)
    return sum(unwrap(module, NAME) for module in model.modules() if _is_lora_linear(module))


def scaled_update(
    base: Float[Tensor, "N o"],
    x: Float[Tensor, "N i"],
    a: Float[Tensor, "r i"],
    b: Float[Tensor, "o r"],
    scaling: float,
) -> Float[Tensor, "N o"]:
    """Add `scaling * x Aᵀ Bᵀ` into base, in place and in the type of base; of length N only x and `x Aᵀ` are kept."""
    low = torch.mm(x.to(base.dtype), a.to(base.dtype).t())  # [N, r]
    return base.addmm_(low, b.to(base.dtype).t(), alpha=scaling)


def _lean_forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    names = [name for name in self.active_adapters if name in self.lora_A]
    if args or kwargs or not all(_is_plain(self, name) for name in names) or not _is_live(self, x):
        return type(self).forward(self, x, *args, **kwargs)
    rows = x.reshape(-1, x.shape[-1])  # [N, i]
    result = self.base_layer(rows)  # [N, o]
    for name in names:
        result = scaled_update(result, rows, self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name])
    return result.view(*x.shape[:-1], result.shape[-1])


def _is_live(layer: Any, x: Tensor) -> bool:
    device = x.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return not (layer.disable_adapters or layer.merged or autocast)


def _is_plain(layer: Any, name: str) -> bool:
    dropout = layer.lora_dropout[name]
    drops = isinstance(dropout, nn.Dropout) and dropout.p > 0 and dropout.training
    return not (drops or name in layer.lora_variant or layer.lora_bias[name] or layer.fan_in_fan_out)


def _is_lora_linear(module: nn.Module) -> bool:
    from peft.tuners import lora

    if isinstance(module, lora.Linear):
        return isinstance(module.get_base_layer(), nn.Linear)
    quantised = [getattr(lora, name, None) for name in ("Linear8bitLt", "Linear4bit")]
    return any(kind is not None and isinstance(module, kind) for kind in quantised)


def _frozen_8bit_layers(model: nn.Module) -> list[nn.Module]:
    if "bitsandbytes" not in sys.modules:
        return []
    from bitsandbytes.nn.modules import Linear8bitLt

    return [module for module in model.modules() if isinstance(module, Linear8bitLt) and module.bias is None]


def _frozen_8bit_forward(self: Any, x: Tensor) -> Tensor:
    return _Frozen8bit.apply(x, self) if x.requires_grad else type(self).forward(self, x)  # pyright: ignore


class _Frozen8bit(torch.autograd.Function):
    """bitsandbytes' forward; a backward that needs the 8-bit weight and its scales only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any) -> Tensor:
        ctx.layer, ctx.dtype = layer, x.dtype
        return type(layer).forward(layer, x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        state = ctx.layer.state
        weight = state.CB.to(ctx.dtype).mul_(state.SCB[:, None].mul(1 / 127))  # int8 steps of absmax / 127 per output
        return grads[0].to(ctx.dtype) @ weight, None
