"""Multi-scale STFT discriminators with feature matching, as in EnCodec (Défossez et al. 2022, arXiv:2210.13438)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

WINDOWS = (2048, 1024, 512, 256)
SLOPE = 0.2

Features = list[Tensor]


class StftDiscriminator(nn.Module):
    """Judges one complex spectrogram with 2-D convolutions, wider and wider in time."""

    def __init__(self, window: int, filters: int) -> None:
        super().__init__()
        self.window = window
        self.hann = nn.Buffer(torch.hann_window(window), persistent=False)
        layers = [nn.Conv2d(2, filters, (3, 9), padding=(1, 4))]
        for dilation in (1, 2, 4):
            layers.append(
                nn.Conv2d(filters, filters, (3, 9), stride=(1, 2), dilation=(dilation, 1), padding=(dilation, 4))
            )
        layers.append(nn.Conv2d(filters, filters, 3, padding=1))
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.last = weight_norm(nn.Conv2d(filters, 1, 3, padding=1))

    def forward(self, audio: Float[Tensor, "B 1 N"]) -> tuple[Tensor, Features]:
        """Logits per place of the spectrogram, and the activations below."""
        spectrum = torch.stft(
            audio[:, 0].float(), self.window, self.window // 4, window=self.hann, normalized=True, return_complex=True
        )
        hidden = torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # [B, 2, frames, bins]
        features = []
        for layer in self.layers:
            hidden = F.leaky_relu(layer(hidden), SLOPE)
            features.append(hidden)
        return self.last(hidden), features


class Discriminators(nn.Module):
    """One discriminator per window length."""

    def __init__(self, filters: int = 32, windows: Sequence[int] = WINDOWS) -> None:
        super().__init__()
        self.scales = nn.ModuleList(StftDiscriminator(window, filters) for window in windows)

    def forward(self, audio: Float[Tensor, "B 1 N"]) -> list[tuple[Tensor, Features]]:
        """What each says."""
        return [scale(audio) for scale in self.scales]


def discriminator_loss(real: list[tuple[Tensor, Features]], made: list[tuple[Tensor, Features]]) -> Float[Tensor, ""]:
    """Hinge loss, mean over scales."""
    losses = [F.relu(1 - r).mean() + F.relu(1 + m).mean() for (r, _), (m, _) in zip(real, made, strict=True)]
    return torch.stack(losses).mean()


def generator_losses(
    real: list[tuple[Tensor, Features]], made: list[tuple[Tensor, Features]]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """How far the discriminators are from being fooled, and how far their activations differ (relative L1)."""
    fooling = torch.stack([F.relu(1 - logits).mean() for logits, _ in made]).mean()
    matching = [
        (ours - theirs.detach()).abs().mean() / theirs.detach().abs().mean().clamp(min=1e-5)
        for (_, real_features), (_, made_features) in zip(real, made, strict=True)
        for theirs, ours in zip(real_features, made_features, strict=True)
    ]
    return fooling, torch.stack(matching).mean()
