"""Stereo audio to spectra and back: 960 samples every 480, real and imaginary parts side by side.

A spectrum begins at its time and looks ahead; going back, the first 480 samples hear one spectrum, all others two.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from data_prep.codec.spectrostream.shape import CHANNELS, N_BINS, STEP_SAMPLES, WINDOW_SAMPLES


def spectra(audio: Float[Tensor, "B 2 N"], n_spectra: int) -> Float[Tensor, "B 4 S F"]:
    """The first `n_spectra` of audio, silence behind its end. Channels: real and imaginary, left, then right."""
    needed = (n_spectra - 1) * STEP_SAMPLES + WINDOW_SAMPLES
    padded = F.pad(audio, (0, max(0, needed - audio.shape[2])))[..., :needed]
    framed = padded.unfold(2, WINDOW_SAMPLES, STEP_SAMPLES) * _window(audio)  # [B, 2, S, 960]
    parts = torch.view_as_real(torch.fft.rfft(framed)[..., :N_BINS])  # [B, 2, S, F, 2]
    return parts.permute(0, 1, 4, 2, 3).flatten(1, 2)


class Synthesis:
    """Spectra back to audio, stretch by stretch."""

    def __init__(self) -> None:
        self._rest: Tensor | None = None

    def push(self, spectra: Float[Tensor, "B 4 S F"]) -> Float[Tensor, "B 2 N"]:
        """480 samples per spectrum."""
        parts = spectra.unflatten(1, (CHANNELS, 2)).permute(0, 1, 3, 4, 2).contiguous()  # [B, 2, S, F, 2]
        bins = F.pad(torch.view_as_complex(parts), (0, 1))
        window = _window(spectra)
        both = window.unflatten(0, (2, STEP_SAMPLES)).square().sum(0).repeat(2)
        pieces = torch.fft.irfft(bins, n=WINDOW_SAMPLES) * (window / both)  # [B, 2, S, 960]
        start, rest = pieces[..., :STEP_SAMPLES], pieces[..., STEP_SAMPLES:]
        first = torch.zeros_like(rest[:, :, :1]) if self._rest is None else self._rest
        self._rest = rest[:, :, -1:]
        return (start + torch.cat([first, rest[:, :, :-1]], dim=2)).flatten(2)


def _window(like: Tensor) -> Float[Tensor, " W"]:
    return torch.hann_window(WINDOW_SAMPLES, periodic=True, dtype=like.dtype, device=like.device)
