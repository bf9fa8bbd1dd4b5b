"""How alike two recordings are, in the ways that matter for music: spectrum, waveform, harmony, onsets.

Silence, loops and tempo are `finetune.judge`'s own measures: both evaluations ask the same functions.
"""

import librosa
import numpy as np
import torch
from jaxtyping import Float

from finetune.codec_tune.losses import MelLoss

HOP = 160
ONSET_WINDOW_SEC = 0.05

Audio = Float[np.ndarray, " N"]


def mel_distance(ours: Audio, theirs: Audio, sample_rate_hz: int) -> float:
    """Mean L1 distance of log-mel spectrograms at four resolutions, in nats."""
    pair = (torch.from_numpy(np.ascontiguousarray(audio, np.float32))[None, None] for audio in (ours, theirs))
    return float(MelLoss(sample_rate_hz)(*pair))


def si_sdr_db(ours: Audio, theirs: Audio) -> float:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019, arXiv:1811.02508) of ours against theirs."""
    ours, theirs = (audio.astype(np.float64) - audio.mean() for audio in (ours, theirs))
    scale = float(ours @ theirs / (theirs @ theirs + 1e-12))
    target = scale * theirs
    return 10 * float(np.log10((target @ target + 1e-12) / (((ours - target) ** 2).sum() + 1e-12)))


def chroma_agreement(ours: Audio, theirs: Audio, sample_rate_hz: int) -> float:
    """Mean cosine of chroma vectors, weighted by how loud the original is at that moment."""
    chroma = [
        librosa.feature.chroma_stft(y=audio, sr=sample_rate_hz, n_fft=4096, hop_length=1024, norm=None)
        for audio in (ours, theirs)
    ]
    dots = (chroma[0] * chroma[1]).sum(axis=0)
    lengths = np.linalg.norm(chroma[0], axis=0) * np.linalg.norm(chroma[1], axis=0) + 1e-9
    weights = chroma[1].sum(axis=0)
    return float((dots / lengths * weights).sum() / (weights.sum() + 1e-9))


def onset_f1(ours: Audio, theirs: Audio, sample_rate_hz: int) -> float:
    """F1 of detected onsets against the original's detected onsets, within 50 ms, each matched once."""
    found, wanted = (
        librosa.onset.onset_detect(y=audio, sr=sample_rate_hz, hop_length=HOP, units="time") for audio in (ours, theirs)
    )
    if not len(found) or not len(wanted):
        return float(len(found) == len(wanted))
    hits, taken = 0, np.zeros(len(found), bool)
    for moment in wanted:
        distance = np.where(taken, np.inf, np.abs(found - moment))
        nearest = int(distance.argmin())
        if distance[nearest] <= ONSET_WINDOW_SEC:
            taken[nearest] = True
            hits += 1
    return 2 * hits / (len(found) + len(wanted))
