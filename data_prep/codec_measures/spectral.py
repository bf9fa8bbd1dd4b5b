"""How far two recordings are apart as spectra: the mel and multi-scale STFT distances that codec papers print.

Definitions and defaults of the Descript Audio Codec's evaluation (Kumar et al. 2023, arXiv:2306.06546; its reference
implementation, `scripts/evaluate.py` with `dac/nn/loss.py`): windows of 2048 and 512 samples at 44.1 kHz, hops of a
quarter, periodic Hann, centred with reflection; per window the mean absolute difference of log10(max(magnitude,
1e-5)²) plus that of the magnitudes, summed over both windows. Mel filters (150 and 80 bands) have Slaney's scale and
norm. Lower is better, 0 is equal; the unit is not decibels.
"""

from functools import lru_cache

import librosa
import torch
from jaxtyping import Float
from torch import Tensor

MEASURE_RATE_HZ = 44_100
WINDOWS = (2048, 512)
MEL_BANDS = (150, 80)
FLOOR = 1e-5

Audio = Float[Tensor, "C N"]


def stft_distance(ours: Audio, theirs: Audio) -> float:
    """Multi-scale STFT distance of two recordings at `MEASURE_RATE_HZ`."""
    return sum(_distance(_magnitude(ours, window), _magnitude(theirs, window)) for window in WINDOWS)


def mel_distance(ours: Audio, theirs: Audio) -> float:
    """Multi-scale mel distance of two recordings at `MEASURE_RATE_HZ`."""
    total = 0.0
    for window, bands in zip(WINDOWS, MEL_BANDS, strict=True):
        filters = _filters(window, bands)
        total += _distance(filters @ _magnitude(ours, window), filters @ _magnitude(theirs, window))
    return total


def _magnitude(audio: Audio, window: int) -> Float[Tensor, "C bins frames"]:
    if audio.shape[1] <= window:
        audio = torch.nn.functional.pad(audio, (0, window + 1 - audio.shape[1]))
    return torch.stft(audio, window, window // 4, window=torch.hann_window(window), return_complex=True).abs()


def _distance(ours: Float[Tensor, "C bins frames"], theirs: Float[Tensor, "C bins frames"]) -> float:
    levels = (2 * spectrum.clamp(min=FLOOR).log10() for spectrum in (ours, theirs))
    return float((next(levels) - next(levels)).abs().mean() + (ours - theirs).abs().mean())


@lru_cache(maxsize=2)
def _filters(window: int, bands: int) -> Float[Tensor, "bands bins"]:
    return torch.from_numpy(librosa.filters.mel(sr=MEASURE_RATE_HZ, n_fft=window, n_mels=bands))
