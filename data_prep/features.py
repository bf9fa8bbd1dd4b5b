"""What can be measured of a clip alone: key with its mode, loudness, brightness, percussiveness. Numbers only; words
come later. Its tempo is its track's (`tempo`), and so is its key but for evidence against it (`keys`).

What it does not know: changes of key within the clip (it gives one). Each value is None where it cannot be told, and
comes with a confidence where it is a guess.

* key: see `keys`; heard in the harmonic part, tuned to what the clip is tuned to.
* loudness: integrated and gated, ITU-R BS.1770-4 (see `loudness`).
* brightness: the energy-weighted spectral centroid below 11 kHz. Percussive share: the part of the energy that median
  filtering gives to the percussive side (librosa's HPSS; FitzGerald 2010).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from data_prep.keys import best_key
from data_prep.loudness import loudness_lufs

RATE_HZ = 22_050
KEY_MIN_SEC = 2.0
SILENT_DB = -70.0
_N_FFT = 4096
_HOP = 1024
_LOWEST_BIN = 5  # 27 Hz
_SILENT_POWER = 1e-3


@dataclass(frozen=True)
class Features:
    """Measured facts of one clip; None where they cannot be told."""

    tempo_bpm: float | None = None
    tempo_confidence: float | None = None
    key: str | None = None
    """As people write it: `A minor`, `E flat major`."""
    key_confidence: float | None = None
    loudness_lufs: float | None = None
    brightness_hz: float | None = None
    percussive_share: float | None = None
    chroma: tuple[float, ...] | None = None
    """The share of each pitch class in the harmonic part, from C on."""


def measure_features(audio: Float[np.ndarray, "*C N"], sample_rate_hz: int) -> Features:
    """Measure a clip [N] or [C, N]. Everything but loudness is measured on the mean of the channels."""
    both = np.atleast_2d(audio).astype(np.float32, copy=False)  # [C, N]
    if both.shape[1] == 0 or _level_db(both) < SILENT_DB:
        return Features()
    mono = _resampled(both.mean(axis=0), sample_rate_hz)
    loudness = loudness_lufs(both[:2], sample_rate_hz)
    if _level_db(mono) < SILENT_DB or len(mono) < _N_FFT:  # the channels cancel out, or too short for one spectrum
        return Features(loudness_lufs=loudness)
    return _spectral(mono, loudness)


def _spectral(mono: Float[np.ndarray, " N"], loudness: float | None) -> Features:
    import librosa

    magnitude = np.abs(librosa.stft(mono, n_fft=_N_FFT, hop_length=_HOP))  # [F, T]
    magnitude[:_LOWEST_BIN] = 0.0  # a constant offset is no music
    if np.square(magnitude).sum() <= _SILENT_POWER * magnitude.shape[1]:
        return Features(loudness_lufs=loudness)
    harmonic, percussive = harmonic_and_percussive(magnitude)
    energy_h, energy_p = float(np.square(harmonic).sum()), float(np.square(percussive).sum())
    chroma = _chroma(harmonic, len(mono))
    key, key_confidence = best_key(chroma) if chroma else (None, None)
    return Features(
        key=key,
        key_confidence=key_confidence,
        loudness_lufs=loudness,
        brightness_hz=_brightness_hz(magnitude),
        percussive_share=round(energy_p / (energy_h + energy_p), 3),
        chroma=chroma,
    )


def harmonic_and_percussive(
    magnitude: Float[np.ndarray, "F T"],
) -> tuple[Float[np.ndarray, "F T"], Float[np.ndarray, "F T"]]:
    """What librosa.decompose.hpss gives, in a fraction of its time: one-dimensional medians are scipy's fast ones."""
    import librosa

    along_time, along_frequency = _running_median(magnitude), _running_median(magnitude.T).T
    mask = librosa.util.softmask(along_time, along_frequency, power=2.0, split_zeros=True)
    other = librosa.util.softmask(along_frequency, along_time, power=2.0, split_zeros=True)
    return magnitude * mask, magnitude * other


def _running_median(rows: Float[np.ndarray, "R T"], width: int = 31) -> Float[np.ndarray, "R T"]:
    """Of each row, mirrored at its ends; all rows in one long line, so that scipy sees a single dimension."""
    from scipy.ndimage import median_filter

    half = width // 2
    padded = np.pad(rows, ((0, 0), (half, half)), mode="symmetric")
    return median_filter(padded.ravel(), width).reshape(padded.shape)[:, half:-half]


def _chroma(harmonic: Float[np.ndarray, "F T"], samples: int) -> tuple[float, ...] | None:
    """The energy of each pitch class from C on, as a share of all of it."""
    import librosa

    if samples < KEY_MIN_SEC * RATE_HZ:
        return None
    tuning = librosa.estimate_tuning(S=harmonic, sr=RATE_HZ, n_fft=_N_FFT)
    power = np.square(harmonic)
    chroma = librosa.feature.chroma_stft(S=power, sr=RATE_HZ, n_fft=_N_FFT, tuning=float(tuning), norm=None).sum(axis=1)
    if chroma.mean() <= 0:
        return None
    return tuple(np.round(chroma / chroma.sum(), 5).tolist())


def _brightness_hz(magnitude: Float[np.ndarray, "F T"]) -> float:
    power = np.square(magnitude, dtype=np.float64).sum(axis=1)  # [F]
    hz = np.linspace(0.0, RATE_HZ / 2, len(power))
    return round(float((hz * power).sum() / power.sum()), 1)


def _level_db(audio: np.ndarray) -> float:
    return float(10 * np.log10(np.square(audio, dtype=np.float64).mean() + 1e-30))


def _resampled(mono: Float[np.ndarray, " N"], sample_rate_hz: int) -> Float[np.ndarray, " M"]:
    if sample_rate_hz == RATE_HZ:
        return mono
    import soxr

    return soxr.resample(mono, sample_rate_hz, RATE_HZ, quality="HQ")
