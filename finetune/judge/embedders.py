"""What turns recordings into points that lie near each other when the music is alike.

`musicnn` (the default) and `clap` are networks that were trained on tags and on text, `data_prep.listeners`.
`spectrum` needs no weights: what a mel spectrogram is like on average, how it varies and how it moves. It hears
instruments, density and brightness; it knows no melody, harmony or form.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

BANDS, WINDOW_SEC, HOP_SEC = 64, 0.064, 0.01
FLOOR = 1e-4
Audio = Float[np.ndarray, "C _"]


@runtime_checkable
class Embedder(Protocol):
    """Recordings in, one row each out."""

    name: str

    def embed(self, audio: Sequence[Audio], sample_rate_hz: int) -> Float[np.ndarray, "N D"]:
        """A row for each recording."""
        ...


class Spectrum:
    """Statistics of the log-mel spectrogram, loudness taken out."""

    name = "spectrum"

    def embed(self, audio: Sequence[Audio], sample_rate_hz: int) -> Float[np.ndarray, "N D"]:
        """Mean, spread, quantiles and movement of each of 64 mel bands: 384 numbers."""
        return np.stack([self._row(one, sample_rate_hz) for one in audio])

    def _row(self, audio: Audio, sample_rate_hz: int) -> Float[np.ndarray, " D"]:
        mono = torch.from_numpy(np.ascontiguousarray(audio.mean(axis=0), dtype=np.float32))
        mel = (_mel(sample_rate_hz)(mono) + FLOOR).log()  # [bands, T]
        moved = mel.diff(dim=1) if mel.shape[1] > 1 else torch.zeros(BANDS, 1)
        low, high = torch.quantile(mel - mel.mean(), torch.tensor([0.1, 0.9]), dim=1)
        parts = [mel.mean(1) - mel.mean(), mel.std(1, correction=0), low, high]
        parts += [moved.abs().mean(1), moved.clamp(min=0).amax(1)]
        return torch.cat(parts).numpy().astype(np.float64)


@lru_cache(maxsize=4)
def _mel(sample_rate_hz: int) -> Any:
    import torchaudio

    window = 1 << round(np.log2(WINDOW_SEC * sample_rate_hz))
    return torchaudio.transforms.MelSpectrogram(
        sample_rate_hz, n_fft=window, hop_length=round(HOP_SEC * sample_rate_hz), n_mels=BANDS, power=1.0
    )


class Scaled:
    """An embedder whose columns are brought to one spread, that of the music it was shown first.

    Without this the distance is that of the few columns with the largest numbers.
    """

    def __init__(self, inner: Embedder, shown: Float[np.ndarray, "N D"]) -> None:
        self.inner, self.name = inner, inner.name
        self.mean = shown.mean(axis=0)
        spread = shown.std(axis=0)
        self.spread = np.where(spread > 1e-6, spread, 1.0)

    def embed(self, audio: Sequence[Audio], sample_rate_hz: int) -> Float[np.ndarray, "N D"]:
        """The inner rows, scaled."""
        return self.scaled(self.inner.embed(audio, sample_rate_hz))

    def scaled(self, rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
        """Rows that the inner embedder gave."""
        return (rows - self.mean) / self.spread


class Listener:
    """An embedder of `data_prep.listeners`, by name."""

    def __init__(self, name: str) -> None:
        from data_prep.listeners.embedding import load_embedder

        self.name = name
        load_embedder(name)  # a missing model is told before anything is played

    def embed(self, audio: Sequence[Audio], sample_rate_hz: int) -> Float[np.ndarray, "N D"]:
        """A row for each recording."""
        from data_prep.listeners.embedding import embed

        return embed(list(audio), sample_rate_hz, self.name).astype(np.float64)


def embedder(name: str) -> Embedder:
    """The embedder of this name; `auto` is musicnn.

    Raises:
        UserError: there is none of this name, or its weights are out of reach.
    """
    return Spectrum() if name == "spectrum" else Listener("musicnn" if name == "auto" else name)
