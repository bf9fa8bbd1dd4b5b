"""Chroma: which of the twelve pitch classes is loudest at each moment, as MusicGen's melody models read it.

A power spectrogram, its bins summed into pitch classes (Ellis 2007, as librosa has it), and of each frame only the
loudest class (Copet et al. 2023, arXiv:2306.05284, section 3.2). The numbers come from a base's own files; equality
with transformers' extractor of these features is a test.
"""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from data_prep.chroma_shape import ChromaShape

SILENT_DB = -60.0
"""RMS relative to full scale below which a clip has no melody."""
PITCHED = 0.25
"""Share of the energy that its loudest pitch class must hold, on average over time, for a clip to have a melody. Flat
is 1/12. Measured on made sounds: noise 0.09 to 0.11, drums 0.11 to 0.19, five lines at once 0.34, three 0.38, one 0.64
(docs/melody.md)."""


def chroma(audio: Float[Tensor, " N"], shape: ChromaShape) -> Float[Tensor, "n n_chroma"]:
    """One-hot rows: the loudest pitch class of each frame. Silent frames name the first class, C, as the reference."""
    energy = energies(audio, shape)
    largest = energy.amax(dim=1, keepdim=True).clamp(min=1e-6)
    return functional.one_hot((energy / largest).argmax(dim=1), shape.n_chroma).float()


def energies(audio: Float[Tensor, " N"], shape: ChromaShape) -> Float[Tensor, "n n_chroma"]:
    """Energy of each pitch class at each frame. Audio shorter than one transform is centred in zeros."""
    missing = max(0, shape.n_fft - len(audio))
    padded = functional.pad(audio.float(), (missing // 2, missing - missing // 2))
    window = torch.hann_window(shape.n_fft)
    spectrum = torch.stft(padded, shape.n_fft, shape.hop_samples, window=window, center=True, return_complex=True)
    power = (spectrum / window.square().sum().sqrt()).abs().square()  # [n_fft / 2 + 1, n]
    return (_filters(shape) @ power).T


def has_melody(audio: Float[Tensor, " N"], shape: ChromaShape) -> bool:
    """Whether there is a pitch to follow: neither silence, nor noise or drums alone."""
    if not len(audio) or audio.square().mean() < 10 ** (SILENT_DB / 10):
        return False
    return pitchedness(audio, shape) >= PITCHED


def pitchedness(audio: Float[Tensor, " N"], shape: ChromaShape) -> float:
    """Share of the loudest pitch class in a frame's energy, averaged over the frames by their energy; 1/12 to 1."""
    energy = energies(audio, shape)
    return float(energy.amax(dim=1).sum() / energy.sum().clamp(min=1e-12))


def agreement(heard: Float[Tensor, "n n_chroma"], wanted: Float[Tensor, "m n_chroma"]) -> float:
    """Share of the frames that both have, 0 to 1, in which the loudest pitch class is the same."""
    n = min(len(heard), len(wanted))
    return float((heard[:n].argmax(dim=1) == wanted[:n].argmax(dim=1)).float().mean()) if n else 0.0


@lru_cache(maxsize=4)
def _filters(shape: ChromaShape) -> Float[Tensor, "n_chroma F"]:
    """Weights of the spectrum's bins in each pitch class."""
    from transformers.audio_utils import chroma_filter_bank

    bank = chroma_filter_bank(shape.n_fft, shape.n_chroma, shape.sample_rate_hz, tuning=0)
    return torch.from_numpy(bank).float()
