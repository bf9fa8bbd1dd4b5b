"""From likelihoods per frame to notes with a beginning and an end.

The procedure is that of Bittner et al. 2022 (arXiv:2203.09893, section 3.2): a note begins where the likelihood of an
onset has a peak, latest ones first, and goes on while its pitch is likely; what it covers is taken out. Pitches that
are still likely then become notes in order of likelihood, traced both ways. Short ones are left out.
"""

import numpy as np
from jaxtyping import Float32

from data_prep.note_slots import Note
from data_prep.notes.model import HOP_SAMPLES, LOWEST_PITCH, RATE_HZ, Likelihoods

ONSET_FROM, NOTE_FROM = 0.5, 0.3
GAP_FRAMES = 11
"""A note goes on over a dip of at most so many frames."""
LEAST_FRAMES = 11
"""128 ms; shorter notes are left out."""


def note_events(heard: Likelihoods, *, onset_from: float = ONSET_FROM, note_from: float = NOTE_FROM) -> list[Note]:
    """The notes of a recording, by their beginning."""
    left = heard.notes.copy()  # [T, 88]
    spans: list[tuple[int, int, int]] = []
    frames, pitches = np.nonzero(_peaks(heard.onsets, onset_from))
    for frame, pitch in sorted(zip(frames.tolist(), pitches.tolist(), strict=True), reverse=True):
        end = _forward(left[:, pitch], frame, note_from)
        if end > frame:
            left[frame:end, pitch] = 0
            spans.append((pitch, frame, end))
    spans += _remaining(left, note_from)
    sec = HOP_SAMPLES / RATE_HZ
    notes = [
        Note(LOWEST_PITCH + pitch, first * sec, end * sec) for pitch, first, end in spans if end - first >= LEAST_FRAMES
    ]
    return sorted(notes, key=lambda note: (note.start_sec, note.pitch))


def _peaks(onsets: Float32[np.ndarray, "T 88"], least: float) -> np.ndarray:
    """Where a likelihood is a peak in time: above the frame before, no lower than the one behind, and high enough."""
    padded = np.pad(onsets, ((1, 1), (0, 0)))
    return (onsets >= least) & (onsets > padded[:-2]) & (onsets >= padded[2:])


def _forward(likely: Float32[np.ndarray, " T"], first: int, least: float) -> int:
    """The frame at which a note that begins at `first` ends: the last likely one before a dip that is too long."""
    end, low = first, 0
    for frame in range(first, len(likely)):
        if likely[frame] >= least:
            end, low = frame + 1, 0
        else:
            low += 1
            if low > GAP_FRAMES:
                break
    return end


def _remaining(left: Float32[np.ndarray, "T 88"], least: float) -> list[tuple[int, int, int]]:
    """Notes without an onset: the likeliest frame first, traced forward and backward. `left` is used up."""
    spans = []
    places = np.argwhere(left >= least)
    order = np.argsort(-left[left >= least], kind="stable")
    for frame, pitch in places[order].tolist():
        if left[frame, pitch] < least:
            continue
        end = _forward(left[:, pitch], frame, least)
        back = _forward(left[::-1, pitch], len(left) - 1 - frame, least)
        first = len(left) - back
        left[first:end, pitch] = 0
        spans.append((pitch, first, end))
    return spans
