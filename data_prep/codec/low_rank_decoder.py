"""A tuned decoder as small changes: a low-rank product for every matrix, the short tensors whole.

A weight of a convolution [out, in, k] is a matrix [out, in * k], that of an LSTM is one already. Each changes by
`up @ down` (Hu et al. 2021, arXiv:2106.09685); biases, lengths of filters and whatever else is one-dimensional or
smaller than its two factors stand in the file as they are. Under weight norm it is the direction that changes.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

UP, DOWN = ".low_rank_up", ".low_rank_down"


def takes_low_rank(weight: Tensor, rank: int) -> bool:
    """Whether two factors are smaller than the weight."""
    if weight.dim() < 2 or not weight.is_floating_point():
        return False
    rows, columns = matrix_shape(weight)
    return rank * (rows + columns) < rows * columns


def matrix_shape(weight: Tensor) -> tuple[int, int]:
    """Rows and columns of a weight as a matrix."""
    return weight.shape[0], weight[0].numel()


def change_of(up: Float[Tensor, "n r"], down: Float[Tensor, "r m"], weight: Tensor) -> Tensor:
    """The product of two factors in the shape of their weight."""
    return (up @ down).reshape(weight.shape)


def is_low_rank(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a decoder's tensors are changes, not the whole."""
    return any(name.endswith(UP) for name in tensors)


def whole_of(old: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors of the tuned decoder, from those of the old one and what a file holds.

    Raises:
        KeyError: a change is of no tensor of the old decoder, or its other factor is missing.
        ValueError: a change has another shape than its tensor.
    """
    whole = {**old, **{name: value for name, value in tensors.items() if not name.endswith((UP, DOWN))}}
    for name in tensors:
        if name.endswith(UP):
            weight = name.removesuffix(UP)
            up, down, before = tensors[name], tensors[weight + DOWN], old[weight]
            if up.dim() != 2 or down.dim() != 2 or (up.shape[0], down.shape[1]) != matrix_shape(before):
                raise ValueError(f"the change of {weight} has another shape")
            whole[weight] = before + change_of(up, down, before).to(before)
    return whole


def part_way(old: Mapping[str, Tensor], tensors: Mapping[str, Tensor], strength: float) -> dict[str, Tensor]:
    """A file's tensors so that the decoder lies at this place between the old one (0) and itself (1)."""
    between = {}
    for name, after in tensors.items():
        if name.endswith(UP):
            between[name] = strength * after
        elif name.endswith(DOWN) or not after.is_floating_point():
            between[name] = after
        else:
            between[name] = torch.lerp(old[name].to(after), after, strength)
    return between
