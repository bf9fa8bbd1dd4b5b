"""Pieces to audio with FluidSynth and the FluidR3 General MIDI soundfont (MIT licence), many pieces in one run.

A run plays one long MIDI file that holds the pieces one after the other, each in its own slot; starting FluidSynth and
reading the soundfont (0.4 s) is then paid once, and a CPU core renders some 300 times faster than real time. Reverb
and chorus are off. The audio is normalised to one loudness per piece.
"""

import math
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import mido
import numpy as np
import soxr
from jaxtyping import Float

from configs.errors import UserError
from starter.recipe.score import Note, Piece

SOUNDFONTS = (
    Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"),
    Path("/usr/share/soundfonts/FluidR3_GM.sf2"),
    Path("/opt/homebrew/share/soundfonts/FluidR3_GM.sf2"),
)
TICKS_PER_SEC = 1000
SYNTH_RATE_HZ = 32_000
GAP_SEC = 2.0
RMS_DB = -20.0
PEAK = 0.95


def render(pieces: Sequence[Piece], sample_rate_hz: int = SYNTH_RATE_HZ) -> list[Float[np.ndarray, " N"]]:
    """Mono audio of each piece, N = round(duration_sec * sample_rate_hz), float32.

    Raises:
        UserError: FluidSynth or its soundfont is missing, or the rendering failed.
    """
    mixes = [_to_rate(audio, sample_rate_hz) for audio in _play(pieces)]
    return [audio * _gain(audio) for audio in mixes]


def render_stems(piece: Piece, sample_rate_hz: int = SYNTH_RATE_HZ) -> dict[str, Float[np.ndarray, " N"]]:
    """Every part alone, at the gain of the mix: they add up to it, but for FluidSynth's event timing (about 2 ms)."""
    return render_all_stems([piece], sample_rate_hz)[0]


def render_all_stems(
    pieces: Sequence[Piece], sample_rate_hz: int = SYNTH_RATE_HZ
) -> list[dict[str, Float[np.ndarray, " N"]]]:
    """`render_stems` of several pieces in one run of FluidSynth."""
    alone = [replace(piece, parts=(part,)) for piece in pieces for part in piece.parts]
    played = iter(_play(alone))
    found = []
    for piece in pieces:
        stems = [_to_rate(next(played), sample_rate_hz) for _ in piece.parts]
        gain = _gain(np.sum(stems, axis=0))
        found.append({part.role: gain * stem for part, stem in zip(piece.parts, stems, strict=True)})
    return found


def midi_of(pieces: Sequence[Piece]) -> tuple[mido.MidiFile, list[float]]:
    """One MIDI file with all pieces, and where each begins in seconds."""
    events: list[tuple[float, int, mido.Message]] = []
    starts, at_sec = [], 0.0
    for piece in pieces:
        starts.append(at_sec)
        for part in piece.parts:
            programme = mido.Message("program_change", channel=part.channel, program=part.program)
            events.append((at_sec, 0, programme))
            events += [event for note in part.notes for event in _note_events(note, part.channel, at_sec)]
        at_sec += piece.duration_sec
        silence = [mido.Message("control_change", channel=channel, control=120, value=0) for channel in range(16)]
        events += [(at_sec + GAP_SEC / 2, 0, message) for message in silence]
        at_sec = math.ceil(at_sec + GAP_SEC)  # FluidSynth works in blocks of 2 ms: every slot begins on one
    return _to_file(events, at_sec), starts


def _note_events(note: Note, channel: int, at_sec: float) -> list[tuple[float, int, mido.Message]]:
    on_sec = at_sec + note.start_sec
    on = mido.Message("note_on", channel=channel, note=note.pitch, velocity=note.velocity)
    off = mido.Message("note_off", channel=channel, note=note.pitch)
    return [(on_sec, 2, on), (on_sec + note.duration_sec, 1, off)]


def _to_file(events: list[tuple[float, int, mido.Message]], end_sec: float) -> mido.MidiFile:
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=1_000_000)])
    tick = 0
    for at_sec, _, message in sorted(events, key=lambda event: event[:2]):
        at_tick = round(at_sec * TICKS_PER_SEC)
        track.append(message.copy(time=at_tick - tick))
        tick = at_tick
    track.append(mido.MetaMessage("end_of_track", time=round(end_sec * TICKS_PER_SEC) - tick))
    return mido.MidiFile(ticks_per_beat=TICKS_PER_SEC, tracks=[track])


def _play(pieces: Sequence[Piece]) -> list[Float[np.ndarray, " N"]]:
    midi, starts = midi_of(pieces)
    with tempfile.TemporaryDirectory(prefix="render-") as folder:
        midi.save(Path(folder) / "pieces.mid")
        raw = _fluidsynth(Path(folder) / "pieces.mid", Path(folder) / "pieces.raw")
    mono = raw.reshape(-1, 2).mean(axis=1)
    ends = [start + piece.duration_sec for start, piece in zip(starts, pieces, strict=True)]
    spans = [(round(a * SYNTH_RATE_HZ), round(b * SYNTH_RATE_HZ)) for a, b in zip(starts, ends, strict=True)]
    return [_fade(mono[a:b]) for a, b in spans]


def _fluidsynth(midi: Path, raw: Path) -> Float[np.ndarray, " M"]:
    program = shutil.which("fluidsynth")
    soundfont = next((path for path in SOUNDFONTS if path.exists()), None)
    if program is None or soundfont is None:
        raise UserError(
            "FluidSynth or the FluidR3 soundfont is missing: the composer cannot make sound.",
            fix="On Debian and Ubuntu: `apt install fluidsynth fluid-soundfont-gm`.",
        )
    settings = ["-g", "0.4", "-R", "0", "-C", "0", "-r", str(SYNTH_RATE_HZ), "-o", "synth.polyphony=512"]
    command = [program, "-q", "-n", "-i", *settings, "-O", "float", "-T", "raw", "-F", raw, soundfont, midi]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not raw.exists():
        raise UserError("FluidSynth failed.", where=done.stderr.strip()[-500:], fix="Check its installation.")
    return np.fromfile(raw, dtype=np.float32)


def _fade(audio: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """The last quarter of a second fades: what still rings is not cut off with a click."""
    n = SYNTH_RATE_HZ // 4
    faded = audio.copy()
    faded[-n:] *= np.linspace(1, 0, n, dtype=np.float32)
    return faded


def _to_rate(audio: Float[np.ndarray, " N"], sample_rate_hz: int) -> Float[np.ndarray, " M"]:
    if sample_rate_hz == SYNTH_RATE_HZ:
        return audio
    return soxr.resample(audio, SYNTH_RATE_HZ, sample_rate_hz, quality="HQ").astype(np.float32)


def _gain(audio: Float[np.ndarray, " N"]) -> float:
    rms = float(np.sqrt(np.mean(audio.astype(np.float64) ** 2))) + 1e-9
    peak = float(np.abs(audio).max()) + 1e-9
    return min(10 ** (RMS_DB / 20) / rms, PEAK / peak)
