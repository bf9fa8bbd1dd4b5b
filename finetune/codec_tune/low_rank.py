"""The factors of a decoder that learns in few numbers: they stand in for its own parameters in the optimizer.

A step's gradient is that of the whole weights, taken apart by the chain rule (`W = old + up @ down`), so the layers
themselves, an LSTM under cuDNN among them, need not know. It saves bytes in the file and in the optimizer, no time.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from data_prep.codec.low_rank_decoder import DOWN, UP, change_of, matrix_shape, takes_low_rank


class LowRankDecoder(nn.Module):
    """Factors for the matrices of a decoder, copies of its other parameters. It begins as the decoder is."""

    def __init__(self, decoder: nn.Module, rank: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.old = {name: value.detach().clone() for name, value in decoder.named_parameters()}
        self.values = nn.ParameterDict()
        for name, value in self.old.items():
            if not takes_low_rank(value, rank):
                self._add(name, value.clone())
                continue
            rows, columns = matrix_shape(value)
            down = torch.randn(rank, columns, generator=generator) / columns**0.5
            self._add(name + UP, torch.zeros(rows, rank, device=value.device))
            self._add(name + DOWN, down.to(value.device))

    def _add(self, name: str, value: Tensor) -> None:
        self.values[name.replace(".", "|")] = nn.Parameter(value)

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds, by the decoder's names."""
        return {name.replace("|", "."): value.detach() for name, value in self.values.items()}

    @torch.no_grad()
    def put_into(self, decoder: nn.Module) -> None:
        """Give a decoder of this shape the weights that the factors mean."""
        held = self.tensors()
        for name, parameter in decoder.named_parameters():
            if name in held:
                parameter.copy_(held[name])
            else:
                parameter.copy_(self.old[name] + change_of(held[name + UP], held[name + DOWN], parameter))

    @torch.no_grad()
    def take_gradients(self, decoder: nn.Module) -> None:
        """Gradients of the factors from those of the decoder's weights."""
        gradients: Mapping[str, Tensor] = {
            name: parameter.grad for name, parameter in decoder.named_parameters() if parameter.grad is not None
        }
        for key, parameter in self.values.items():
            name = key.replace("|", ".")
            weight = name.removesuffix(UP).removesuffix(DOWN)
            gradient = gradients[weight]
            if name.endswith(UP):
                down = self.values[key.removesuffix(UP.replace(".", "|")) + DOWN.replace(".", "|")]
                parameter.grad = gradient.reshape(matrix_shape(gradient)) @ down.T
            elif name.endswith(DOWN):
                up = self.values[key.removesuffix(DOWN.replace(".", "|")) + UP.replace(".", "|")]
                parameter.grad = up.T @ gradient.reshape(matrix_shape(gradient))
            else:
                parameter.grad = gradient.clone()
