"""Clips → measured features, on all cores; each clip's are kept in the cache."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from data_prep.cache import Cache, work_key
from data_prep.clips import Clip, changed, read_clips
from data_prep.decode import AudioError
from data_prep.features import Features, measure_features
from data_prep.pool import run_each
from data_prep.progress import stage
from data_prep.segment import Segment

FEATURES_VERSION = 1
READ_HZ = 44_100  # whatever the base: its features do not depend on it
_CLIPS_PER_TASK = 64  # so that one long track occupies all cores, and a kill costs little


@dataclass(frozen=True)
class _Task:
    """Consecutive clips of one version of a track: plain values, for another process."""

    path: Path
    channels: int
    segments: tuple[Segment, ...]


def clip_features(clips: Sequence[Clip], cache: Cache, *, workers: int) -> dict[str, Features]:
    """The features of every clip by its id.

    Raises:
        UserError: a song changed since it was measured.
    """
    keys = {clip.id: work_key(FEATURES_VERSION, **clip.place) for clip in clips}
    found: dict[str, Features] = {}
    with stage("listen", len(clips), unit="clips") as progress:
        for clip in clips:
            known = cache.read_json("features", keys[clip.id])
            if known is not None:
                found[clip.id] = Features(**known)
                progress.advance(reused=True)
        groups = list(_groups([clip for clip in clips if clip.id not in found]))
        for index, outcome in run_each(_measure, [_task(group) for group in groups], workers):
            if isinstance(outcome, AudioError | OSError):
                raise changed(groups[index][0].version.track.song.relative, outcome) from outcome
            if isinstance(outcome, Exception):
                raise outcome
            for clip, features in zip(groups[index], outcome, strict=True):
                cache.write_json("features", keys[clip.id], asdict(features))
                found[clip.id] = features
                progress.advance()
    return found


def _groups(clips: Sequence[Clip]) -> Iterator[list[Clip]]:
    for _, of_version in groupby(clips, key=lambda clip: clip.version.key):
        group = sorted(of_version, key=lambda clip: clip.segment.start_sec)
        for first in range(0, len(group), _CLIPS_PER_TASK):
            yield group[first : first + _CLIPS_PER_TASK]


def _task(group: Sequence[Clip]) -> _Task:
    version = group[0].version
    return _Task(version.path, min(2, version.scan.channels), tuple(clip.segment for clip in group))


def _measure(task: _Task) -> list[Features]:
    audio = read_clips(task.path, task.segments, sample_rate_hz=READ_HZ, channels=task.channels)
    return [measure_features(samples, READ_HZ) for samples in audio]
