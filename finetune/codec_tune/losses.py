"""What the codec is told to keep: log-mel spectrograms at several resolutions, and the waveform itself.

Multi-scale mel loss as in the Descript Audio Codec (Kumar et al. 2023, arXiv:2306.06546, section 3.5).
"""

import torch
import torchaudio
from jaxtyping import Float
from torch import Tensor, nn

# Window in samples and mel bands: fine in time for attacks, fine in frequency for chords.
MEL_SCALES = ((256, 20), (512, 40), (1024, 80), (2048, 160))
FLOOR = 1e-4
WAVE_WEIGHT = 15.0
ATTACK_WEIGHT = 10.0


class MelLoss(nn.Module):
    """Mean L1 distance of log-mel spectrograms over all scales, in natural-log units."""

    def __init__(self, sample_rate_hz: int, scales: tuple[tuple[int, int], ...] = MEL_SCALES) -> None:
        super().__init__()
        self.mels = nn.ModuleList(
            torchaudio.transforms.MelSpectrogram(
                sample_rate_hz, n_fft=window, hop_length=window // 4, n_mels=bands, power=1.0, norm="slaney"
            )
            for window, bands in scales
        )

    def forward(self, audio: Float[Tensor, "B 1 N"], target: Float[Tensor, "B 1 N"]) -> Float[Tensor, ""]:
        """Zero when both are equal."""
        return self.with_attacks(audio, target)[0]

    def with_attacks(
        self, audio: Float[Tensor, "B 1 N"], target: Float[Tensor, "B 1 N"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The distance, and that of the onset envelopes: how fast all bands together grow louder, in nats a frame.

        An attack is a few frames in hundreds, so the mean distance alone smears it or makes some up.
        """
        distances, attacks = [], []
        for mel in self.mels:
            ours, theirs = ((mel(wave[:, 0].float()) + FLOOR).log() for wave in (audio, target))  # [B, bands, T]
            distances.append((ours - theirs).abs().mean())
            rises = (spectrum.diff(dim=2).clamp(min=0).mean(dim=1) for spectrum in (ours, theirs))  # [B, T - 1]
            attacks.append((next(rises) - next(rises)).abs().mean())
        return torch.stack(distances).mean(), torch.stack(attacks).mean()
