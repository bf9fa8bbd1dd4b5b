"""Beats of a recording or of a tempo, and the click track that a model follows: where in its beat each frame lies.

Beats of a recording come from librosa's tracker (Ellis 2007, "Beat tracking by dynamic programming"). It finds no
downbeats, and may take half or double the tempo that players count; beats that a person has are better, and are read
from a text file, a beat per line: its second, and its number in the bar (1 is the downbeat) where that is known.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from configs.errors import UserError

WIDTH = 4
"""Numbers per frame: click on the beat, click on the downbeat, cosine and sine of the place in the beat."""
RATE_HZ = 22_050
SILENT_DB = -60.0
MOST_BEATS, MAX_BYTES = 1_000_000, 64 * 2**20
LEAST_SEC = 0.01
"""Between beats of a table: closer ones are no beats, and a piece filled up in their tempo would have no end."""


@dataclass(frozen=True)
class Beats:
    """Moments of beats, rising, and which of them begin a bar; none does where that is not known."""

    at_sec: Float[np.ndarray, " n"]
    downbeats: Bool[np.ndarray, " n"]

    @property
    def tempo_bpm(self) -> float:
        """From the median distance of neighbours; 0 for fewer than two beats."""
        return 60.0 / float(np.median(np.diff(self.at_sec))) if len(self.at_sec) > 1 else 0.0

    def from_second(self, start_sec: float) -> "Beats":
        """The beats from there on, counted from there, the last one before it kept (at a negative second)."""
        first = max(0, int(np.searchsorted(self.at_sec, start_sec)) - 1)
        return Beats(self.at_sec[first:] - start_sec, self.downbeats[first:])

    def lasting(self, end_sec: float) -> "Beats":
        """Continued in the last tempo up to a second, where they end before it."""
        if len(self.at_sec) < 2 or self.at_sec[-1] >= end_sec:
            return self
        step = 60.0 / self.tempo_bpm
        more = np.arange(1, 1 + int(np.ceil((end_sec - self.at_sec[-1]) / step)))
        marked = np.flatnonzero(self.downbeats)
        bar = int(np.median(np.diff(marked))) if len(marked) > 1 else 0
        numbers = len(self.at_sec) - 1 + more
        down = (numbers - marked[-1]) % bar == 0 if bar else np.zeros(len(more), bool)
        return Beats(np.concatenate([self.at_sec, self.at_sec[-1] + step * more]), np.append(self.downbeats, down))

    def features(self, n_frames: int, frame_rate: float) -> Float[np.ndarray, "T 4"]:
        """`WIDTH` numbers for each frame; zeros before the first beat and behind the last, where nothing is known."""
        found = np.zeros((n_frames, WIDTH), np.float32)
        frames = np.round(self.at_sec * frame_rate).astype(np.int64)
        inside = (frames >= 0) & (frames < n_frames)
        found[frames[inside], 0] = 1.0
        found[frames[inside & self.downbeats], 1] = 1.0
        if len(self.at_sec) > 1:
            now = np.arange(n_frames) / frame_rate
            place = np.interp(now, self.at_sec, np.arange(len(self.at_sec)))
            known = (now >= self.at_sec[0]) & (now <= self.at_sec[-1])
            found[known, 2:] = np.stack([np.cos(2 * np.pi * place), np.sin(2 * np.pi * place)], axis=1)[known]
        return found


def grid(bpm: float, duration_sec: float, beats_per_bar: int = 4) -> Beats:
    """A steady tempo from second 0 on, the first beat a downbeat."""
    n = 2 + int(np.ceil(duration_sec * bpm / 60))
    return Beats(np.arange(n) * 60.0 / bpm, np.arange(n) % beats_per_bar == 0)


def tracked(audio: Float[np.ndarray, " N"]) -> Beats | None:
    """Beats of a recording at `RATE_HZ`; None for silence, and where fewer than two are found."""
    import librosa

    if not len(audio) or np.mean(np.square(audio, dtype=np.float64)) < 10 ** (SILENT_DB / 10):
        return None
    _, found = librosa.beat.beat_track(y=audio, sr=RATE_HZ, units="time", trim=False)
    at_sec = np.asarray(found, np.float64)
    return Beats(at_sec, np.zeros(len(at_sec), bool)) if len(at_sec) > 1 else None


def read_beats(path: Path) -> Beats:
    """A text file of beats, a second per line, and behind it the beat's number in the bar where that is known.

    Raises:
        UserError: it is no such file.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError("this is no table of beats", where=f"{path}: larger than {MAX_BYTES // 2**20} MiB")
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the beats cannot be read ({error})", where=str(path)) from error
    rows = [line.replace(",", " ").split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    try:
        at_sec = np.array([float(row[0]) for row in rows], np.float64)
        downbeats = np.array([len(row) > 1 and int(float(row[1])) == 1 for row in rows], bool)
    except (ValueError, OverflowError) as error:
        fix = "a line per beat: its second, and its number in the bar if you know it (0.52 1)"
        raise UserError("this is no table of beats", where=f"{path}: {error}", fix=fix) from error
    if not 2 <= len(at_sec) <= MOST_BEATS or not np.isfinite(at_sec).all() or (np.diff(at_sec) < LEAST_SEC).any():
        said = f"the beats must be two or more, each at least {LEAST_SEC:g} s later than the one before"
        raise UserError(said, where=str(path))
    if at_sec[0] < 0:
        raise UserError("the beats must be counted from the recording's beginning, second 0", where=str(path))
    return Beats(at_sec, downbeats)
