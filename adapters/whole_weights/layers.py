"""Layers that learn whole: what is new in a base that was moved to another codec or text encoder.

Their weights are fp32, as LoRA's are, whatever the base around them is held in, and are used in its arithmetic. They
carry the module names of the base, so that engines and the model's own code find them where they always are.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional


class WholeLinear(nn.Linear):
    """A linear layer in the arithmetic of its input."""

    def forward(self, input: Float[Tensor, "*batch D_in"]) -> Float[Tensor, "*batch D_out"]:
        """X Wᵀ + b."""
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return functional.linear(input, self.weight.to(input.dtype), bias)


class WholeEmbedding(nn.Embedding):
    """A table of vectors, handed out in the arithmetic of the model around it."""

    arithmetic: torch.dtype = torch.float32

    def forward(self, input: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch D"]:
        """Rows of the table."""
        return functional.embedding(input, self.weight).to(self.arithmetic)


def install(lm: nn.Module, values: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> None:
    """Put layers with these values, by the names of their weights, in the place of those of the model."""
    for module, own in _by_module(values).items():
        parent, _, leaf = module.rpartition(".")
        old: Any = lm.get_submodule(module)
        made = _like(old, own, dtype).to(device)
        setattr(lm.get_submodule(parent), leaf, made.requires_grad_(False))


def whole_modules(lm: nn.Module) -> dict[str, nn.Module]:
    """The layers of a model that learn whole, by name."""
    return {name: module for name, module in lm.named_modules() if isinstance(module, (WholeLinear, WholeEmbedding))}


def values_of(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Copies of their weights on the CPU, by name."""
    return {
        f"{name}.{leaf}": tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
        for name, module in modules.items()
        for leaf, tensor in module.state_dict().items()
    }


def _like(old: nn.Module, own: Mapping[str, Tensor], dtype: torch.dtype) -> nn.Module:
    weight = own["weight"].float()
    if isinstance(old, nn.Embedding):
        table = WholeEmbedding(weight.shape[0], weight.shape[1], _weight=weight)
        table.arithmetic = dtype
        return table
    with torch.device("meta"):
        made = WholeLinear(weight.shape[1], weight.shape[0], bias="bias" in own)
    made.load_state_dict({name: tensor.float() for name, tensor in own.items()}, assign=True)
    return made


def _by_module(values: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in values.items():
        module, _, leaf = name.rpartition(".")
        found.setdefault(module, {})[leaf] = tensor
    return found
