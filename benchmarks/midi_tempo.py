"""The tempo that a MIDI file states (Standard MIDI Files 1.0), and its sound through FluidSynth."""

import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from configs.errors import UserError

SOUND_FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
_MOST_SHARE = 0.8
_META, _TEMPO = 0xFF, 0x51


def stated_tempo(path: Path) -> float | None:
    """The tempo in beats per minute that holds for four fifths of a file's beats; None where there is none."""
    data = path.read_bytes()
    at, changes, end = 14, [], 0
    while data[at : at + 4] == b"MTrk":
        length = int.from_bytes(data[at + 4 : at + 8], "big")
        for tick, bpm in _tempi(data[at + 8 : at + 8 + length]):
            end = max(end, tick)
            if bpm:
                changes.append((tick, bpm))
        at += 8 + length
    ticks: dict[float, int] = {}
    for (start, bpm), (stop, _) in pairwise([*sorted(changes), (end, 0.0)]):
        ticks[round(bpm, 1)] = ticks.get(round(bpm, 1), 0) + stop - start
    most = max(ticks, key=lambda bpm: ticks[bpm], default=None)
    return most if most and ticks[most] >= _MOST_SHARE * end else None


def render(path: Path, folder: Path, rate_hz: int) -> Path:
    """The file as WAV in a folder, made once.

    Raises:
        UserError: FluidSynth or the sound font FluidR3 is not installed.
    """
    if not shutil.which("fluidsynth") or not SOUND_FONT.exists():
        fix = "apt-get install fluidsynth fluid-soundfont-gm"
        raise UserError("MIDI files need FluidSynth and FluidR3 to be heard.", fix=fix)
    out = folder / f"{path.stem}.wav"
    if not out.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["fluidsynth", "-niq", "-g", "0.4", "-r", str(rate_hz), "-F", str(out), str(SOUND_FONT), str(path)]
        subprocess.run(command, check=True, capture_output=True)
    return out


def _tempi(track: bytes) -> Iterator[tuple[int, float]]:
    """(tick, tempo) of each event of a track; 0 for those that are no change of tempo."""
    at, tick, status = 0, 0, 0
    while at < len(track):
        wait, at = _number(track, at)
        tick += wait
        if track[at] == _META:
            kind = track[at + 1]
            length, body = _number(track, at + 2)
            yield tick, 6e7 / int.from_bytes(track[body : body + 3], "big") if kind == _TEMPO else 0.0
            at = body + length
        elif track[at] in (0xF0, 0xF7):
            length, body = _number(track, at + 1)
            at = body + length
        else:
            if track[at] & 0x80:
                status, at = track[at], at + 1
            at += 1 if status >> 4 in (0xC, 0xD) else 2
            yield tick, 0.0


def _number(track: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, the last one below 128; and where it ends."""
    value = 0
    while True:
        byte = track[at]
        value, at = value << 7 | byte & 0x7F, at + 1
        if byte < 0x80:
            return value, at
