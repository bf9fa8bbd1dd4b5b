"""The picture that musicnn sees: log10(1 + 10000 · mel) of 16 kHz mono, 96 bands, FFT 512, hop 256.

The mel scale and its triangles are Slaney's, as librosa's default; power spectrum, Hann window, frames centred with
zeros beyond the ends. musicnn's own code rounds the mel values to half precision first, which is left out here.
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data_prep.listeners.musicnn.network import N_MELS, PATCH_FRAMES

SAMPLE_RATE_HZ = 16_000
N_FFT = 512
HOP_SAMPLES = 256
SPARE_FRAMES = 18
"""So many frames (0.3 s) of a whole clip may go unheard, between patches."""


def log_mel(audio: Float[np.ndarray, " N"]) -> Float[Tensor, "T 96"]:
    """The picture of 16 kHz mono audio: one frame more than whole hops in it."""
    signal = torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))
    spectrum = torch.stft(
        signal, N_FFT, HOP_SAMPLES, window=_window(), center=True, pad_mode="constant", return_complex=True
    )  # [F, T]
    power = spectrum.real.square() + spectrum.imag.square()
    return torch.log10(1.0 + 10_000.0 * (power.T @ _triangles()))


def patches(picture: Float[Tensor, "T 96"]) -> Float[Tensor, "P 187 96"]:
    """As few patches of three seconds as cover the picture but for `SPARE_FRAMES`, evenly spaced from its first frame
    to its last. So 30 s, a few frames more than ten patches, do not cost eleven.

    A picture shorter than one patch is repeated until it fills one, as short pieces were when musicnn was trained.
    """
    n_frames = len(picture)
    if n_frames < PATCH_FRAMES:
        picture = picture.repeat(-(-PATCH_FRAMES // n_frames), 1)[:PATCH_FRAMES]
        n_frames = PATCH_FRAMES
    count = max(1, -(-(n_frames - SPARE_FRAMES) // PATCH_FRAMES))
    starts = np.linspace(0, n_frames - PATCH_FRAMES, count).round().astype(int)
    return torch.stack([picture[start : start + PATCH_FRAMES] for start in starts.tolist()])


@lru_cache(maxsize=1)
def _window() -> Float[Tensor, " W"]:
    return torch.hann_window(N_FFT)


@lru_cache(maxsize=1)
def _triangles() -> Float[Tensor, "F 96"]:
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(N_FFT // 2 + 1, 0.0, SAMPLE_RATE_HZ / 2, N_MELS, SAMPLE_RATE_HZ, "slaney", "slaney")
