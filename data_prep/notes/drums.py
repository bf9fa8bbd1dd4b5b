"""Where drums play, frame by frame: hits by the rise of the spectrum, and what counts as being among them.

Of a drum stem every hit counts. In a mix other instruments begin as well, so only what rises far up in the spectrum
does, as cymbals and snares do and few others: a bass drum alone is not found there, and a guitar that is struck hard
may be taken for a drum. The model's one slot says whether to play drums, and the official player holds it for as long
as they should play: a frame has drums when a hit is near.
"""

import numpy as np
from jaxtyping import Float, Int8

from data_prep.onsets import FRAMES_PER_SEC, onsets

NEAR_SEC = 1.0
"""From a hit, back and forth: at 60 bpm drums that play on every second beat play all the time."""
RISE = 0.3
"""Of the compressed magnitude's mean over a region, from which on a peak is a hit."""
MIX_RISE = 0.45
APART_SEC = 0.05
"""A peak must be the highest so far around it."""


def drum_hits(audio: Float[np.ndarray, " N"], *, of_mix: bool) -> Float[np.ndarray, " H"]:
    """Seconds of the hits in mono audio at 22,050 Hz: a drum stem, or a mix."""
    rises = onsets(audio)  # [regions, T]
    if not rises.shape[1]:
        return np.zeros(0)
    rise, least = (rises[-1], MIX_RISE) if of_mix else (rises.max(0), RISE)
    around = max(1, round(APART_SEC * FRAMES_PER_SEC))
    highest = np.lib.stride_tricks.sliding_window_view(np.pad(rise, around), 2 * around + 1).max(-1)
    return np.flatnonzero((rise >= least) & (rise == highest)) / FRAMES_PER_SEC


def drum_slots(hits_sec: Float[np.ndarray, " H"], n_frames: int, frame_rate_hz: float) -> Int8[np.ndarray, "T 1"]:
    """1 in every frame that has a hit near, else 0."""
    slots = np.zeros((n_frames, 1), np.int8)
    for hit in hits_sec:
        first, end = ((hit + side * NEAR_SEC) * frame_rate_hz for side in (-1, 1))
        slots[max(0, int(np.floor(first))) : max(0, int(np.ceil(end)))] = 1
    return slots
