"""What can be measured of a clip: tempo, key with its mode, loudness, brightness, percussiveness. Numbers only; words
come later.

What it does not know: metre, changes of tempo or key within the clip (it gives one of each), and which octave of the
tempo a listener would tap. Each value is None where it cannot be told, and comes with a confidence where it is a
guess.

* tempo: librosa's estimate (autocorrelation of onset strength under a prior around 120 bpm), refined on the
  autocorrelation's peak at four beats. Its confidence is the autocorrelation at one beat, 0 to 1.
* key: correlation of the harmonic part's mean chroma with the 24 rotations of Krumhansl and Kessler's probe-tone
  profiles (Psychological Review 89, 1982). Its confidence is how far the best correlation lies above the second,
  seldom past 0.3.
* loudness: integrated and gated, ITU-R BS.1770-4 (see `loudness`).
* brightness: the energy-weighted spectral centroid below 11 kHz. Percussive share: the part of the energy that median
  filtering gives to the percussive side (librosa's HPSS; FitzGerald 2010).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from data_prep.loudness import loudness_lufs

RATE_HZ = 22_050
TEMPO_MIN_SEC = 3.0
KEY_MIN_SEC = 2.0
SILENT_DB = -70.0
_N_FFT = 4096
_HOP = 1024
_ONSET_HOP = 256
_LOWEST_BIN = 5  # 27 Hz
_SILENT_POWER = 1e-3
_NAMES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
_MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
_MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])


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
    tempo, tempo_confidence = _tempo(mono)
    key, key_confidence = _key(harmonic, len(mono))
    return Features(
        tempo_bpm=tempo,
        tempo_confidence=tempo_confidence,
        key=key,
        key_confidence=key_confidence,
        loudness_lufs=loudness,
        brightness_hz=_brightness_hz(magnitude),
        percussive_share=round(energy_p / (energy_h + energy_p), 3),
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


def _tempo(mono: Float[np.ndarray, " N"]) -> tuple[float | None, float | None]:
    import librosa

    if len(mono) < TEMPO_MIN_SEC * RATE_HZ:
        return None, None
    onsets = librosa.onset.onset_strength(y=mono, sr=RATE_HZ, hop_length=_ONSET_HOP)
    onsets = onsets - onsets.mean()
    correlation = librosa.autocorrelate(onsets)
    if correlation[0] <= 1e-6 * len(onsets):
        return None, None
    guess = float(
        librosa.feature.tempo(onset_envelope=onsets + abs(onsets.min()), sr=RATE_HZ, hop_length=_ONSET_HOP)[0]
    )
    frames_per_min = 60.0 * RATE_HZ / _ONSET_HOP
    beat = frames_per_min / guess  # in onset frames
    beats = 4 if 4 * beat + beat / 2 < len(correlation) * 0.75 else 1
    beat = _peak_near(correlation, beats * beat, beat / 8) / beats
    height = (
        correlation[round(beat)] / correlation[0] / (1 - beat / len(onsets))
    )  # fewer products overlap at a larger lag
    return round(float(frames_per_min / beat), 1), round(float(np.clip(height, 0.0, 1.0)), 3)


def _peak_near(values: Float[np.ndarray, " L"], place: float, reach: float) -> float:
    """The place of the highest value within reach, between the samples by a parabola through three of them."""
    low, high = max(1, int(place - reach)), min(len(values) - 2, int(place + reach) + 1)
    at = low + int(np.argmax(values[low : high + 1]))
    before, peak, after = values[at - 1 : at + 2]
    bend = before - 2 * peak + after
    return float(at + (0.5 * (before - after) / bend if bend < 0 else 0.0))


def _key(harmonic: Float[np.ndarray, "F T"], samples: int) -> tuple[str | None, float | None]:
    import librosa

    if samples < KEY_MIN_SEC * RATE_HZ:
        return None, None
    tuning = librosa.estimate_tuning(S=harmonic, sr=RATE_HZ, n_fft=_N_FFT)
    power = np.square(harmonic)
    chroma = librosa.feature.chroma_stft(S=power, sr=RATE_HZ, n_fft=_N_FFT, tuning=float(tuning), norm=None).sum(axis=1)
    if chroma.std() < 1e-6 * chroma.mean() or chroma.mean() <= 0:
        return None, None
    scores = np.array([np.corrcoef(chroma, np.roll(p, tonic))[0, 1] for p in (_MAJOR, _MINOR) for tonic in range(12)])
    best, second = np.argsort(scores)[::-1][:2]
    mode = "major" if best < 12 else "minor"
    return f"{_NAMES[best % 12]} {mode}", round(float(scores[best] - scores[second]), 3)


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
