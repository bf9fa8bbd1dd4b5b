"""A small judge of what a recording is: it hears statistics of a mel spectrogram and names family and drums.

It is trained on pieces that went through the codec, so that the codec's sound tells it nothing.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import torchaudio
from jaxtyping import Float
from torch import Tensor, nn

BANDS, STEPS, HIDDEN = 64, 600, 96


def features(audio: Float[np.ndarray, " N"], sample_rate_hz: int) -> Float[Tensor, " F"]:
    """Mean, spread and movement of each mel band, the loudness taken out, and cepstral means."""
    spectrum = (
        _mel(sample_rate_hz)(torch.from_numpy(np.ascontiguousarray(audio, np.float32))) + 1e-4
    ).log()  # [bands, T]
    moved = spectrum.diff(dim=1)
    parts = [spectrum.mean(1) - spectrum.mean(), spectrum.std(1), moved.abs().mean(1), moved.clamp(min=0).amax(1)]
    quantiles = torch.quantile(spectrum - spectrum.mean(), torch.tensor([0.1, 0.9]), dim=1)
    return torch.cat([*parts, *quantiles])


@lru_cache(maxsize=2)
def _mel(sample_rate_hz: int) -> torchaudio.transforms.MelSpectrogram:
    hop = sample_rate_hz // 100
    return torchaudio.transforms.MelSpectrogram(sample_rate_hz, n_fft=1024, hop_length=hop, n_mels=BANDS, power=1.0)


class Probe:
    """One hidden layer per question, trained to the end in seconds."""

    def __init__(self, heard: Float[Tensor, "M F"], answers: dict[str, Sequence[str]], steps: int = STEPS) -> None:
        self.steps = steps
        self.mean, self.std = heard.mean(0), heard.std(0) + 1e-3
        self.names = {question: sorted(set(said)) for question, said in answers.items()}
        self.nets = {question: self._train(heard, said, self.names[question]) for question, said in answers.items()}

    def _train(self, heard: Tensor, said: Sequence[str], names: list[str]) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = nn.Sequential(
                nn.Linear(heard.shape[1], HIDDEN), nn.ReLU(), nn.Dropout(0.3), nn.Linear(HIDDEN, len(names))
            )
            optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
            target = torch.tensor([names.index(answer) for answer in said])
            known = (heard - self.mean) / self.std
            for _ in range(self.steps):
                rows = torch.randint(len(known), (128,), generator=generator)
                noisy = known[rows] + 0.1 * torch.randn(known[rows].shape, generator=generator)
                loss = F.cross_entropy(net(noisy), target[rows], label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return net.eval()

    @torch.no_grad()
    def answers(self, heard: Float[Tensor, "M F"]) -> dict[str, list[str]]:
        """What it says of each recording."""
        known = (heard - self.mean) / self.std
        return {
            question: [self.names[question][index] for index in net(known).argmax(1).tolist()]
            for question, net in self.nets.items()
        }


def accuracy(said: Sequence[str], true: Sequence[str]) -> float:
    """Share of right answers."""
    return sum(a == b for a, b in zip(said, true, strict=True)) / len(true)
