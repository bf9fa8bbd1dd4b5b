"""First values of what is new in a base that was moved: random, at the size that the base's own weights have.

A function of the weight's name alone: the same on every machine, for every run and for the proof after it.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from adapters.lora_start import seed_of
from adapters.tensor_stream import StoredWeights

USUAL_STD = 0.02
"""Of a weight that the base has none like (transformers' `initializer_range`)."""


def start_values(
    shapes: Mapping[str, tuple[int, ...]], stored: StoredWeights, replaced: Mapping[str, tuple[str, float]]
) -> dict[str, Tensor]:
    """By name, for weights of these shapes. `replaced`: by beginning of a name, a weight of the base to be like, and
    how large in comparison.

    A projection of states of another width is scaled so that what comes out is as large as before; biases are zero.
    """
    return {name: _drawn(name, shape, stored, replaced) for name, shape in shapes.items()}


def _drawn(
    name: str, shape: tuple[int, ...], stored: StoredWeights, replaced: Mapping[str, tuple[str, float]]
) -> Tensor:
    if name.endswith(".bias"):
        return torch.zeros(shape)
    like, share = next((known for start, known in replaced.items() if name.startswith(start)), ("", 1.0))
    std = USUAL_STD * share
    if like in stored:
        own = stored[like].float()
        wider = math.sqrt(own.shape[-1] / shape[-1]) if own.shape[-1] != shape[-1] else 1.0
        std = float(own.std()) * wider * share
    generator = torch.Generator().manual_seed(seed_of(0, name))
    return torch.randn(shape, generator=generator) * std
