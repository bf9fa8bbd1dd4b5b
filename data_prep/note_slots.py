"""Notes as Magenta RealTime 2 follows them: 128 slots per frame, one per MIDI pitch. No torch here."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int8

from configs.errors import UserError

N_PITCHES = 128
OFF, HELD, ONSET = 0, 1, 2
ROUNDING = 1e-6
"""Of a frame: times on a frame's edge belong to it, however they were rounded."""


class Note(NamedTuple):
    """One note: MIDI pitch 0 … 127, and from when to when it sounds."""

    pitch: int
    start_sec: float
    end_sec: float


def note_slots(notes: Iterable[Note], n_frames: int, frame_rate_hz: float) -> Int8[np.ndarray, "T 128"]:
    """The state of every pitch in every frame: 0 silent, 2 struck in this frame, 1 sounding since before.

    A note begins in the frame that holds its start and sounds in at least that frame; of a note struck again while it
    sounds, the later one counts. What lies outside the frames is left out.

    Raises:
        UserError: a pitch is none, or a note ends before it begins.
    """
    slots = np.zeros((n_frames, N_PITCHES), np.int8)
    for note in sorted(notes, key=lambda note: note.start_sec):
        if not 0 <= note.pitch < N_PITCHES or not note.start_sec <= note.end_sec:
            raise UserError(f"This is no note: {note}.", fix="Pitches are 0 … 127, and a note ends after it begins.")
        first = int(np.floor(note.start_sec * frame_rate_hz + ROUNDING))
        end = max(first + 1, int(np.ceil(note.end_sec * frame_rate_hz - ROUNDING)))
        slots[max(first, 0) : max(end, 0), note.pitch] = HELD
        if 0 <= first < n_frames:
            slots[first, note.pitch] = ONSET
    return slots
