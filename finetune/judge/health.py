"""What is wrong with a piece whatever it was asked for: silence, clipping, being stuck, level; and pieces too alike.

Loops are told by self-similarity: music repeats bar by bar and is not stuck, so only what comes back at one and the
same distance nearly without change, and is short, counts as a loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from data_prep.loudness import loudness_lufs

SILENT_DB = -50.0
SILENT_WINDOW_SEC = 1.0
FULL_SCALE = 0.999
CLIPPED_SHARE = 1e-3
"""Of the samples at full scale, from where on it is heard."""
LOOP_MAX_SEC, LOOP_SHARE = 1.0, 0.8
"""A loop: frames equal those a fixed time of at most this before them, in at least this share of the second half."""


@dataclass(frozen=True)
class Health:
    """One piece."""

    silent_share: float
    """Of its seconds, how many cannot be heard."""
    clipped_share: float
    """Of its samples, how many are at full scale."""
    loop: float
    """How much of its second half repeats at one short distance, 0 to 1."""
    loudness_lufs: float | None

    @property
    def is_silent(self) -> bool:
        """Whether most of it cannot be heard."""
        return self.silent_share > 0.5

    @property
    def is_clipped(self) -> bool:
        """Whether clipping can be heard."""
        return self.clipped_share > CLIPPED_SHARE

    @property
    def is_stuck(self) -> bool:
        """Whether it repeats one short thing to its end."""
        return self.loop >= LOOP_SHARE


def check(
    audio: Float[np.ndarray, "C N"], codes: Int[np.ndarray, "K T"], sample_rate_hz: int, frame_rate: float
) -> Health:
    """Measure a piece; `codes` are the tokens it was decoded from."""
    return Health(
        silent_share(audio, sample_rate_hz),
        float(np.mean(np.abs(audio) >= FULL_SCALE)) if audio.size else 0.0,
        loop_share(codes, frame_rate),
        loudness_lufs(audio[:2], sample_rate_hz),
    )


def silent_share(audio: Float[np.ndarray, "C N"], sample_rate_hz: int) -> float:
    """Share of one-second windows below -50 dB full scale."""
    window = max(1, round(SILENT_WINDOW_SEC * sample_rate_hz))
    power = np.square(audio.astype(np.float64)).mean(axis=0)  # [N]
    if not len(power):
        return 1.0
    starts = np.arange(0, len(power), window)
    lengths = np.diff(starts, append=len(power))
    means = np.add.reduceat(power, starts) / lengths
    return float(np.average(10 * np.log10(means + 1e-12) < SILENT_DB, weights=lengths))


def loop_share(codes: Int[np.ndarray, "K T"], frame_rate: float) -> float:
    """The largest share of frames in the second half that equal, in the first codebook, the frame some lag before."""
    first = codes[0]
    half = len(first) // 2
    lags = range(1, min(half, round(LOOP_MAX_SEC * frame_rate)) + 1)
    return max((float(np.mean(first[half:] == first[half - lag : len(first) - lag])) for lag in lags), default=0.0)


def spread(embedded: Float[np.ndarray, "N D"], prompts: Sequence[str]) -> Float[np.ndarray, " N"]:
    """How far each piece lies from the other pieces of its prompt, on average; NaN where it has none.

    Pieces of one prompt that all lie at one place are one piece, however many seeds were drawn.
    """
    names = np.array(prompts)
    found = np.full(len(embedded), np.nan)
    for row in range(len(embedded)):
        others = (names == names[row]) & (np.arange(len(embedded)) != row)
        if others.any():
            found[row] = np.linalg.norm(embedded[others] - embedded[row], axis=1).mean()
    return found
