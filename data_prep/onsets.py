"""Where things begin in a track, by region of the spectrum: the evidence that tempo is read from.

Frames of 46 ms every 11.6 ms; in each region, the rise of the compressed magnitude from one frame to the next, summed
(spectral flux; Böck and Widmer, DAFx 2013). Made in a stream, so that a track of hours needs no memory.
"""

import numpy as np
from jaxtyping import Float

RATE_HZ = 22_050
HOP = 256
FRAMES_PER_SEC = RATE_HZ / HOP
_N_FFT = 1024
_REGIONS_HZ = ((20.0, 130.0), (130.0, 400.0), (400.0, 3000.0), (5000.0, 11_000.0))
"""Bass drum and bass; low middle; snare and most of what is played; cymbals."""
REGIONS = len(_REGIONS_HZ)
_AT_ONCE = 2048  # frames
_COMPRESSION = 1000.0  # of magnitudes of a signal at full scale


class Onsets:
    """Onsets of a mono signal at 22.05 kHz that comes in pieces of any size."""

    def __init__(self) -> None:
        self._window = np.hanning(_N_FFT).astype(np.float32)
        self._edges = [(round(low * _N_FFT / RATE_HZ), round(high * _N_FFT / RATE_HZ)) for low, high in _REGIONS_HZ]
        self._held = np.zeros(_N_FFT // 2, np.float32)
        self._before: np.ndarray | None = None
        self._found: list[np.ndarray] = []

    def add(self, samples: Float[np.ndarray, " _"]) -> None:
        """Hear the next piece."""
        self._held = np.concatenate([self._held, samples.astype(np.float32, copy=False)])
        count = 1 + (len(self._held) - _N_FFT) // HOP
        for first in range(0, count, _AT_ONCE):
            self._hear(first, min(_AT_ONCE, count - first))
        self._held = self._held[max(0, count) * HOP :]

    def result(self) -> Float[np.ndarray, "R T"]:
        """The rise in each region, frame by frame."""
        return np.concatenate(self._found, axis=1) if self._found else np.zeros((REGIONS, 0), np.float32)

    def _hear(self, first: int, count: int) -> None:
        from scipy.fft import rfft

        part = self._held[first * HOP : (first + count - 1) * HOP + _N_FFT]
        frames = np.lib.stride_tricks.sliding_window_view(part, _N_FFT)[::HOP]
        loud = np.log1p(_COMPRESSION / _N_FFT * np.abs(np.asarray(rfft(frames * self._window, axis=1))))  # [T, F]
        rise = np.diff(loud, axis=0, prepend=loud[:1] if self._before is None else self._before)
        rise = np.maximum(rise, 0.0)
        self._found.append(np.stack([rise[:, low : max(high, low + 1)].mean(axis=1) for low, high in self._edges]))
        self._before = loud[-1:]


def onsets(samples: Float[np.ndarray, " N"]) -> Float[np.ndarray, "R T"]:
    """The onsets of a whole mono signal at 22.05 kHz."""
    heard = Onsets()
    heard.add(samples)
    return heard.result()
