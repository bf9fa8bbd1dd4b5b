"""A print of how a track sounds: its pitch classes four times a second, enough to know the recording again.

Levels do not matter (magnitudes are compressed and each moment compared with its neighbourhood), nor does most of what
an encoder at a low rate does, as nothing above 4 kHz is looked at. Pitch classes are a third of a semitone wide, so
that a copy at another speed can be found by shifting them.
"""

import numpy as np
from jaxtyping import Float, UInt8

RATE_HZ = 22_050
CLASSES = 36
_N_FFT, _HOP, _FRAMES_A_ROW = 4096, 2756, 2
ROWS_PER_SEC = RATE_HZ / _HOP / _FRAMES_A_ROW
_LOW_HZ, _HIGH_HZ = 110.0, 4000.0
_A_HZ = 440.0


class SoundPrint:
    """The print of a mono signal at 22.05 kHz that comes in pieces of any size."""

    def __init__(self) -> None:
        self._window = np.hanning(_N_FFT).astype(np.float32)
        self._classes = _classes()
        self._held = np.zeros(0, np.float32)
        self._found: list[np.ndarray] = []

    def add(self, samples: Float[np.ndarray, " _"]) -> None:
        """Hear the next piece."""
        from scipy.fft import rfft

        self._held = np.concatenate([self._held, samples.astype(np.float32, copy=False)])
        stride, span = _HOP * _FRAMES_A_ROW, _N_FFT + _HOP * (_FRAMES_A_ROW - 1)
        rows = 1 + (len(self._held) - span) // stride
        if rows < 1:
            return
        starts = np.arange(rows * _FRAMES_A_ROW) * _HOP
        frames = np.lib.stride_tricks.sliding_window_view(self._held, _N_FFT)[starts]
        strength = np.sqrt(np.abs(np.asarray(rfft(frames * self._window, axis=1)))) @ self._classes  # [T, 36]
        self._found.append(strength.reshape(rows, _FRAMES_A_ROW, CLASSES).mean(axis=1))
        self._held = self._held[rows * stride :]

    def result(self) -> UInt8[np.ndarray, "T 36"]:
        """A row for each quarter of a second; 255 is the strongest class of a moment."""
        if not self._found:
            return np.zeros((0, CLASSES), np.uint8)
        strengths = np.concatenate(self._found)
        strengths = strengths - strengths.min(axis=1, keepdims=True)
        return np.round(255 * strengths / np.maximum(strengths.max(axis=1, keepdims=True), 1e-6)).astype(np.uint8)


def sound_print(samples: Float[np.ndarray, " N"]) -> UInt8[np.ndarray, "T 36"]:
    """The print of a whole mono signal at 22.05 kHz."""
    heard = SoundPrint()
    heard.add(samples)
    return heard.result()


def _classes() -> Float[np.ndarray, "F 36"]:
    """Which pitch class each bin of the spectrum belongs to: its share of the two nearest ones."""
    hz = np.fft.rfftfreq(_N_FFT, 1 / RATE_HZ)
    fold = np.zeros((len(hz), CLASSES), np.float32)
    for index in np.flatnonzero((hz >= _LOW_HZ) & (hz <= _HIGH_HZ)):
        place = CLASSES * np.log2(hz[index] / _A_HZ)
        below = int(np.floor(place))
        fold[index, below % CLASSES] += 1 - (place - below)
        fold[index, (below + 1) % CLASSES] += place - below
    return fold / np.maximum(fold.sum(axis=0), 1e-6)
