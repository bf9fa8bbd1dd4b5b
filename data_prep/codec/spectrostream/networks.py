"""SpectroStream's encoder and decoder: residual blocks of convolutions between a stereo spectrum and features.

The blocks near the spectrum hear each channel alone, with shared weights; those near the features hear both. Modules
carry the names of the official tensors (magenta-rt 2.0.3, `jax/spectrostream.py`).
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from data_prep.codec.spectrostream.convolutions import CausalConv, CausalUpConv, Memory, average_pool, repeat
from data_prep.codec.spectrostream.shape import CHANNELS, GROWTH, N_BINS, N_SPLIT, STRIDES, CodecShape

Pair = tuple[int, int]


def _kernel(stride: Pair) -> Pair:
    return max(3, 2 * stride[0]), max(3, 2 * stride[1])


class DownBlock(nn.Module):
    """ELU and 3 × 3, ELU and a strided convolution, beside a mean over the same blocks."""

    def __init__(self, channels: int, out: int, stride: Pair) -> None:
        super().__init__()
        kernel = _kernel(stride)
        self.stride = stride
        self.last = f"conv2d_{kernel[0]}x{kernel[1]}_a"
        self.conv2d_3x3 = CausalConv(channels, channels, (3, 3))
        self.add_module(self.last, CausalConv(channels, out, kernel, stride))
        self.shortcut = CausalConv(channels, out, (1, 1)) if channels != out else None

    def forward(self, x: Float[Tensor, "B C T F"], memory: Memory) -> Float[Tensor, "B C2 T2 F2"]:
        """The next stretch of a signal."""
        y = self.conv2d_3x3(F.elu(x), memory)
        y = self.get_submodule(self.last)(F.elu(y), memory)
        beside = average_pool(x, self.stride)
        return y + (beside if self.shortcut is None else self.shortcut(beside, memory))


class UpBlock(nn.Module):
    """ELU and a transposed convolution (3 × 3 where nothing grows), ELU and 3 × 3, beside repeated values."""

    def __init__(self, channels: int, out: int, stride: Pair) -> None:
        super().__init__()
        kernel = _kernel(stride)
        grows = stride != (1, 1)
        self.stride = stride
        self.first = f"conv2dtranspose_{kernel[0]}x{kernel[1]}" if grows else "conv2d_3x3_a"
        conv = CausalUpConv(channels, out, kernel, stride) if grows else CausalConv(channels, out, kernel)
        self.add_module(self.first, conv)
        self.conv2d_3x3 = CausalConv(out, out, (3, 3))
        self.shortcut = CausalConv(channels, out, (1, 1)) if channels != out else None

    def forward(self, x: Float[Tensor, "B C T F"], memory: Memory) -> Float[Tensor, "B C2 T2 F2"]:
        """The next stretch of a signal."""
        y = self.get_submodule(self.first)(F.elu(x), memory)
        y = self.conv2d_3x3(F.elu(y), memory)
        beside = x if self.shortcut is None else self.shortcut(x, memory)
        return y + repeat(beside, self.stride)


class Mixer(nn.Module):
    """Features of a time step from its bins, or back: one linear map beside a two-layer one."""

    def __init__(self, channels: int, hidden: int, out: int, straight: str, *, activated: bool) -> None:
        super().__init__()
        self.straight, self.activated = straight, activated
        self.add_module(straight, CausalConv(channels, out, (1, 1)))
        first, second = CausalConv(channels, hidden, (1, 1)), CausalConv(hidden, out, (1, 1))
        self.shortcut_layer = nn.ModuleDict({"conv1x1_b1": first, "conv1x1_b2": second})

    def forward(self, x: Float[Tensor, "B C T 1"], memory: Memory) -> Float[Tensor, "B C2 T 1"]:
        """Step by step."""
        hidden = self.shortcut_layer["conv1x1_b1"](F.elu(x) if self.activated else x, memory)
        return self.get_submodule(self.straight)(x, memory) + self.shortcut_layer["conv1x1_b2"](F.elu(hidden), memory)


class Encoder(nn.Module):
    """Stereo spectra to features: 4 spectra, 40 ms, to a frame."""

    def __init__(self, shape: CodecShape) -> None:
        super().__init__()
        width = shape.encoder_width
        self.base_conv_first = CausalConv(2, width, (7, 7))
        bins = N_BINS
        for index, (stride, growth) in enumerate(zip(STRIDES, GROWTH, strict=True)):
            heard = width * CHANNELS if index == N_SPLIT else width
            width *= growth
            bins //= stride[1]
            self.add_module(f"encoder_{index}", DownBlock(heard, width, stride))
        self.bottleneck = Bottleneck(width)
        self.output_convs = Mixer(bins * width, bins * width, shape.features, "conv1x1_last", activated=True)

    def forward(self, spectra: Float[Tensor, "B 4 S F"], memory: Memory) -> Float[Tensor, "B T E"]:
        """Features of the frames of a stretch, T = ceil(S / 4)."""
        x = self.base_conv_first(_apart(spectra), memory)
        for index in range(len(STRIDES)):
            if index == N_SPLIT:
                x = _together(x)
            x = self.get_submodule(f"encoder_{index}")(x, memory)
        x = self.bottleneck(x, memory)  # [B, C, T, bins]
        flat = x.permute(0, 3, 1, 2).flatten(1, 2)[..., None]  # [B, bins * C, T, 1]
        return self.output_convs(flat, memory)[..., 0].transpose(1, 2)


class Bottleneck(nn.Module):
    """The encoder's last block: two 3 × 3 convolutions beside nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv2d_3x3 = CausalConv(width, width, (3, 3))
        self.conv2d_3x3_a = CausalConv(width, width, (3, 3))

    def forward(self, x: Float[Tensor, "B C T F"], memory: Memory) -> Float[Tensor, "B C T F"]:
        """The next stretch of a signal."""
        return x + self.conv2d_3x3_a(F.elu(self.conv2d_3x3(F.elu(x), memory)), memory)


class Decoder(nn.Module):
    """Features to stereo spectra, one frame late: the first 4 spectra belong to no frame."""

    def __init__(self, shape: CodecShape) -> None:
        super().__init__()
        width = shape.decoder_width
        for growth in GROWTH:
            width *= growth
        self.width, self.bins = width, N_BINS
        for stride in STRIDES:
            self.bins //= stride[1]
        flat = self.bins * width
        self.input_layer = Mixer(shape.features, flat, flat, "conv1x1_first", activated=False)
        self.input_layers_residual_unit = UpBlock(width, width, (1, 1))
        heard = width
        for index, (stride, growth) in enumerate(zip(reversed(STRIDES), reversed(GROWTH), strict=True)):
            width //= growth
            out = width * CHANNELS if index == 0 else width
            self.add_module(f"decoder_{index}", UpBlock(heard, out, stride))
            heard = width
        self.output_layer = nn.ModuleDict({"base_conv_last": CausalConv(width, 2, (7, 7))})

    def forward(self, features: Float[Tensor, "B T E"], memory: Memory) -> Float[Tensor, "B 4 S F"]:
        """Spectra of a stretch, S = 4 · T."""
        x = self.input_layer(features.transpose(1, 2)[..., None], memory)[..., 0]  # [B, bins * C, T]
        x = x.unflatten(1, (self.bins, self.width)).permute(0, 2, 3, 1)  # [B, C, T, bins]
        x = self.input_layers_residual_unit(x, memory)
        for index in range(len(STRIDES)):
            x = self.get_submodule(f"decoder_{index}")(x, memory)
            if index == 0:
                x = _apart(x)
        return _together(self.output_layer["base_conv_last"](F.elu(x), memory))


def _apart(x: Float[Tensor, "B C T F"]) -> Float[Tensor, "B2 C2 T F"]:
    """Each audio channel as a row of its own."""
    return x.unflatten(1, (CHANNELS, -1)).flatten(0, 1)


def _together(x: Float[Tensor, "B2 C2 T F"]) -> Float[Tensor, "B C T F"]:
    return x.unflatten(0, (-1, CHANNELS)).flatten(1, 2)
