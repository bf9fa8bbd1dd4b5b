"""Notes and drums from a MIDI file, in seconds. Needs mido, a small reader in plain Python.

Channel 10 is the drums', as General MIDI has it; all other channels are notes, whatever instrument they name. The
sustain pedal is left out of account: a note ends where it is released.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from data_prep.note_slots import Note

DRUM_CHANNEL = 9  # counted from 0
MAX_BYTES = 8 * 2**20
MAX_SEC = 4 * 3600.0


@dataclass(frozen=True)
class Score:
    """What a file says."""

    notes: list[Note]
    drums_sec: list[float]
    """When a drum is struck."""


def read_midi(path: Path) -> Score:
    """All notes and drum hits of a file, whatever track they are on.

    Raises:
        UserError: mido is not installed, the file is no MIDI file, damaged, too large, or says nothing.
    """
    try:
        import mido
    except ImportError as error:
        raise UserError(
            "Reading MIDI needs the package mido.", where=str(error), fix="`pip install mido`, or woodshed[notes]."
        ) from error
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES // 2**20} MiB")
        found = _score(mido.MidiFile(path))
    except Exception as error:  # mido has a dozen ways to stumble over bytes that are no MIDI
        raise UserError(
            f"This MIDI file cannot be read ({str(error) or type(error).__name__}).",
            where=str(path),
            fix="Give a standard MIDI file (.mid), of type 0 or 1.",
        ) from error
    if not found.notes and not found.drums_sec:
        raise UserError("This MIDI file holds no notes.", where=str(path), fix="Give one that does.")
    return found


def _score(file: Any) -> Score:
    """Notes by pairs of beginning and end; of a pitch struck twice on one channel, the first is released first."""
    sounding: dict[tuple[int, int], list[float]] = {}
    notes: list[Note] = []
    drums: list[float] = []
    second = 0.0
    for message in file:  # in order of time, tracks merged; `time` is seconds since the one before
        second += message.time
        if second > MAX_SEC:
            raise ValueError(f"it lasts more than {MAX_SEC / 3600:g} hours")
        if message.type not in ("note_on", "note_off"):
            continue
        struck = message.type == "note_on" and message.velocity > 0
        if message.channel == DRUM_CHANNEL:
            drums += [second] if struck else []
        elif struck:
            sounding.setdefault((message.channel, message.note), []).append(second)
        elif sounding.get((message.channel, message.note)):
            notes.append(Note(message.note, sounding[message.channel, message.note].pop(0), second))
    notes += [Note(pitch, start, second) for (_, pitch), starts in sounding.items() for start in starts]
    return Score(sorted(notes, key=lambda note: (note.start_sec, note.pitch)), drums)
