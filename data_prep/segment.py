"""Where to cut a track into clips: silence is skipped, the rest is kept, every cut lies on a codec frame.

A passage is what lies between two silences of at least `silence_sec`. One that is longer than `max_sec` is cut into
clips of `max_sec`; the end is a clip of its own when it lasts `min_sec`, else it shares evenly with as many clips
before it as are needed to make all of them long enough. So music is lost in two cases only: a passage shorter than
`min_sec` between silences, and an end that cannot be shared because `min_sec` is more than half of `max_sec`. Less
than one codec frame may go at the very end.
"""

from dataclasses import dataclass
from math import ceil, floor

import numpy as np

from configs.errors import UserError
from configs.prep import SegmentSettings
from data_prep.measure import TrackScan, measure

__all__ = ["Segment", "TrackScan", "measure", "segments"]

_ROUNDING = 1e-6


@dataclass(frozen=True)
class Segment:
    """A clip's place in its track, both ends on codec frames."""

    start_sec: float
    duration_sec: float


def segments(track: TrackScan, settings: SegmentSettings, frame_samples: int, sample_rate_hz: int) -> list[Segment]:
    """The clips of a track, in order; none for a silent one or one without a passage of `min_sec`.

    Args:
        track: the measured track.
        settings: lengths and what counts as silence.
        frame_samples: samples per codec frame (640 for MusicGen's EnCodec).
        sample_rate_hz: the codec's rate, which those samples are counted at.

    Raises:
        UserError: `min_sec` is more than `max_sec`, or `max_sec` is shorter than a codec frame.
    """
    frames_per_sec = sample_rate_hz / frame_samples
    longest = floor(settings.max_sec * frames_per_sec + _ROUNDING)
    shortest = max(1, ceil(settings.min_sec * frames_per_sec - _ROUNDING))
    if shortest > longest:
        raise UserError(
            f"the shortest clip ({settings.min_sec} s) is longer than the longest ({settings.max_sec} s)",
            where="segment.min_sec, segment.max_sec",
            fix="make segment.min_sec smaller or segment.max_sec larger",
        )
    clips: list[Segment] = []
    for start, end in _passages(track, settings, frames_per_sec):
        at = start
        for length in _lengths(end - start, shortest, longest):
            clips.append(Segment(at / frames_per_sec, length / frames_per_sec))
            at += length
    return clips


def _passages(track: TrackScan, settings: SegmentSettings, frames_per_sec: float) -> list[tuple[int, int]]:
    """Stretches of music in codec frames, widened to whole frames (into silence) but never past the track."""
    total = floor(track.duration_sec * frames_per_sec + _ROUNDING)
    found: list[tuple[int, int]] = []
    for first, last in _loud_runs(np.asarray(track.levels_db), settings, track.window_sec):
        start_sec, end_sec = first * track.window_sec, min(last * track.window_sec, track.duration_sec)
        start = max(floor(start_sec * frames_per_sec + _ROUNDING), found[-1][1] if found else 0)
        end = min(ceil(end_sec * frames_per_sec - _ROUNDING), total)
        if end > start:
            found.append((start, end))
    return found


def _loud_runs(levels_db: np.ndarray, settings: SegmentSettings, window_sec: float) -> list[tuple[int, int]]:
    """Runs of windows [first, last) that hold sound, where pauses shorter than `silence_sec` do not part them.

    A short pause at either end of the track stays with the music, as it does in between.
    """
    loud = np.flatnonzero(levels_db >= settings.silence_db)
    if not len(loud):
        return []
    long_enough = max(1, ceil(settings.silence_sec / window_sec - _ROUNDING))
    parted = np.flatnonzero(np.diff(loud) - 1 >= long_enough)
    starts = np.concatenate([loud[:1], loud[parted + 1]])
    ends = np.concatenate([loud[parted], loud[-1:]]) + 1
    starts[0] = 0 if starts[0] < long_enough else starts[0]
    ends[-1] = len(levels_db) if len(levels_db) - ends[-1] < long_enough else ends[-1]
    return [(int(a), int(b)) for a, b in zip(starts, ends, strict=True)]


def _lengths(frames: int, shortest: int, longest: int) -> list[int]:
    """How to cut a passage of so many frames; the sum is less than `frames` only where the module says so."""
    if frames < shortest:
        return []
    whole, tail = divmod(frames, longest)
    if not tail or tail >= shortest:
        return [longest] * whole + ([tail] if tail else [])
    for sharing in range(1, whole + 1):
        each, more = divmod(sharing * longest + tail, sharing + 1)
        if each >= shortest:
            return [longest] * (whole - sharing) + [each + 1] * more + [each] * (sharing + 1 - more)
    return [longest] * whole
