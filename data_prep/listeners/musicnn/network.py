"""The musicnn network: a log-mel patch of three seconds → 50 tags, and the features they are read from.

Pons and Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging" (2019); the shapes are
those of the package musicnn 0.1.0, whose trained weights are read here (`weights/README.md`). Front-end: timbral
filters, tall in frequency and short in time, and temporal filters, one band high and up to two seconds long; each keeps
its maximum over frequency. Mid-end: three convolutions over time, the last two residual. All four outputs are pooled
over time by maximum and mean; a hidden layer of 200 and the 50 logits follow.

It runs in evaluation only: there is no dropout, and batch normalisation is a scale and a shift.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

N_MELS = 96
PATCH_FRAMES = 187
N_TAGS = 50
POOLED_WIDTH = 2 * 753
HIDDEN_WIDTH = 200
_TIMBRAL = ((204, 38), (204, 67))  # filters, bands; each 7 frames long
_TEMPORAL = ((51, 128), (51, 64), (51, 32))  # filters, frames; each one band high
_MID_WIDTH = 64
_LENGTH = 7


@dataclass(frozen=True)
class Output:
    """What the network says of a batch of patches."""

    logits: Float[Tensor, "B 50"]
    hidden: Float[Tensor, "B 200"]
    pooled: Float[Tensor, "B 1506"]
    """Maximum and mean over time of the front-end's and mid-end's 753 channels, by turns."""


class ScaleAndShift(nn.Module):
    """Batch normalisation with its statistics folded in, over the channels of [B, C, …]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "B C *rest"]) -> Float[Tensor, "B C *rest"]:
        """Each channel times its scale, plus its shift."""
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return x * self.scale.view(shape) + self.shift.view(shape)


class FrontFilter(nn.Module):
    """One kind of front-end filter: convolution, ReLU, normalisation, maximum over frequency."""

    def __init__(self, filters: int, frames: int, bands: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, filters, (frames, bands))
        self.norm = ScaleAndShift(filters)
        # "Same" length over time; of an even kernel's odd number of zeros, one more goes behind.
        self.padding = (0, 0, (frames - 1) // 2, frames // 2)

    def forward(self, x: Float[Tensor, "B 1 T M"]) -> Float[Tensor, "B C T"]:
        """As many frames as came in.

        ReLU and normalisation keep the order of values, or turn it round where the scale is negative. So the maximum
        is taken first, of a filter with its sign turned there: the large image is read once instead of four times.
        """
        sign = torch.where(self.norm.scale < 0, -1.0, 1.0)
        weight, bias = self.conv.weight * sign[:, None, None, None], self.conv.bias * sign  # pyright: ignore[reportOptionalOperand]
        highest = F.conv2d(F.pad(x, self.padding), weight, bias).amax(dim=3)
        return self.norm(F.relu(highest * sign[:, None]))


class MidLayer(nn.Module):
    """A convolution over time and all channels, ReLU, normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, _MID_WIDTH, _LENGTH, padding=_LENGTH // 2)
        self.norm = ScaleAndShift(_MID_WIDTH)

    def forward(self, x: Float[Tensor, "B C T"]) -> Float[Tensor, "B 64 T"]:
        """As many frames as came in."""
        return self.norm(F.relu(self.conv(x)))


class Musicnn(nn.Module):
    """The whole network. Patches of any length go in; it was trained on 187 frames, 3 s."""

    def __init__(self) -> None:
        super().__init__()
        self.input_norm = ScaleAndShift(1)
        kinds = [(n, _LENGTH, bands) for n, bands in _TIMBRAL] + [(n, frames, 1) for n, frames in _TEMPORAL]
        self.front = nn.ModuleList(FrontFilter(*kind) for kind in kinds)
        self.mid = nn.ModuleList([MidLayer(sum(kind[0] for kind in kinds)), MidLayer(_MID_WIDTH), MidLayer(_MID_WIDTH)])
        self.pooled_norm = ScaleAndShift(POOLED_WIDTH)
        self.hidden = nn.Linear(POOLED_WIDTH, HIDDEN_WIDTH)
        self.hidden_norm = ScaleAndShift(HIDDEN_WIDTH)
        self.logits = nn.Linear(HIDDEN_WIDTH, N_TAGS)

    def forward(self, log_mel: Float[Tensor, "B T 96"]) -> Output:
        """Tags and features of each patch."""
        x = self.input_norm(log_mel[:, None])  # [B, 1, T, M]
        front = torch.cat([each(x) for each in self.front], dim=1)  # [B, 561, T]
        first = self.mid[0](front)
        second = self.mid[1](first) + first
        third = self.mid[2](second) + second
        channels = torch.cat([front, first, second, third], dim=1)  # [B, 753, T]
        pooled = torch.stack([channels.amax(dim=2), channels.mean(dim=2)], dim=2).flatten(1)  # [B, 1506]
        hidden = self.hidden_norm(F.relu(self.hidden(self.pooled_norm(pooled))))
        return Output(self.logits(hidden), hidden, pooled)
