"""Convolutions over time and frequency that never look ahead in time, on whole signals or on stretches of one.

On stretches, a `Memory` keeps the last inputs of every convolution; the stretches then give what the whole gives. A
stretch is as long as the strides divide, but for the last one.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Memory:
    """The last inputs of each convolution of a network, for one signal. Starts as silence."""

    def __init__(self) -> None:
        self._last: dict[nn.Module, Tensor] = {}

    def before(self, module: nn.Module, x: Float[Tensor, "B C T F"], n_steps: int) -> Float[Tensor, "B C T2 F"]:
        """`x` with the `n_steps` inputs that came before it; the end of the result is kept for the next call."""
        B, C, _, bins = x.shape
        last = self._last.get(module)
        whole = torch.cat([x.new_zeros(B, C, n_steps, bins) if last is None else last, x], dim=2)
        self._last[module] = whole[:, :, whole.shape[2] - n_steps :]
        return whole


class CausalConv(nn.Conv2d):
    """A convolution whose output at a time has heard up to that time. Output steps: ceil(T / stride)."""

    def __init__(self, channels: int, out: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> None:
        super().__init__(channels, out, kernel, stride)
        self.n_before = max(kernel[0] - stride[0], 0)
        beside = kernel[1] - stride[1]
        self.beside = (beside // 2, beside - beside // 2)

    def forward(self, x: Float[Tensor, "B C T F"], memory: Memory) -> Float[Tensor, "B C2 T2 F2"]:
        """The next stretch of a signal."""
        missing = -x.shape[2] % self.stride[0]
        if self.n_before:
            x = memory.before(self, x, self.n_before)
        x = F.pad(x, (*self.beside, 0, missing))
        return F.conv2d(x, self.weight, self.bias, self.stride)


class CausalUpConv(nn.ConvTranspose2d):
    """The transpose of a strided convolution; each input step gives `stride` output steps, at its own time or later."""

    def __init__(self, channels: int, out: int, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__(channels, out, kernel, stride)
        self.n_before = -(-kernel[0] // stride[0]) - 1

    def forward(self, x: Float[Tensor, "B C T F"], memory: Memory) -> Float[Tensor, "B C2 T2 F2"]:
        """The next stretch of a signal."""
        n_steps, n_bins = x.shape[2] * self.stride[0], x.shape[3] * self.stride[1]
        start = self.n_before * self.stride[0]
        x = memory.before(self, x, self.n_before)
        y = F.conv_transpose2d(x, self.weight, self.bias, self.stride)
        beside = (self.kernel_size[1] - self.stride[1]) // 2  # overhang at the low end; the rest is at the high end
        return y[:, :, start : start + n_steps, beside : beside + n_bins]


def average_pool(x: Float[Tensor, "B C T F"], stride: tuple[int, int]) -> Float[Tensor, "B C T2 F2"]:
    """Means over blocks; a block that is cut off at the end counts silence there."""
    x = F.pad(x, (0, 0, 0, -x.shape[2] % stride[0]))
    return F.avg_pool2d(x, stride)


def repeat(x: Float[Tensor, "B C T F"], stride: tuple[int, int]) -> Float[Tensor, "B C T2 F2"]:
    """Every value `stride` times."""
    return x.repeat_interleave(stride[0], dim=2).repeat_interleave(stride[1], dim=3)
