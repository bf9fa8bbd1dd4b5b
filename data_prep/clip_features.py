"""Clips → measured features, on all cores; each clip's are kept in the cache.

Everything is measured on the audio that the codec is given, one channel or two, folded down in the same way. Tempo and
key belong to the track, and a clip has others only on evidence (see `tempo` and `keys`). One channel is what two
loudspeakers play alike, so its loudness is that of two: the same music is as loud on a mono base as on a stereo one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from data_prep.cache import Cache, work_key
from data_prep.clips import Clip, changed, read_clips
from data_prep.decode import AudioError
from data_prep.features import Features, measure_features
from data_prep.fold_down import FoldDown
from data_prep.keys import best_key, clip_key, mean_chroma
from data_prep.pool import run_each
from data_prep.progress import stage
from data_prep.segment import Segment
from data_prep.stems import DRUMS, MIX
from data_prep.tempo import STATED_FROM, Tempo

FEATURES_VERSION = 2
READ_HZ = 44_100  # whatever the base: its features do not depend on it
_DRUMS_SHARE = 0.75  # of the energy percussive: drums alone
_CLIPS_PER_TASK = 64  # so that one long track occupies all cores, and a kill costs little


@dataclass(frozen=True)
class _Task:
    """Consecutive clips of one version of a track: plain values, for another process."""

    path: Path
    channels: int
    fold: FoldDown
    segments: tuple[Segment, ...]


def clip_features(
    clips: Sequence[Clip], tempi: Mapping[str, Tempo], cache: Cache, *, channels: int, workers: int
) -> dict[str, Features]:
    """The features of every clip by its id.

    Args:
        clips: what to measure.
        tempi: the tempo of each track, by its `source_sha256`.
        cache: where measurements are kept.
        channels: how many the codec is given.
        workers: processes; 0 means one per core.

    Raises:
        UserError: a song changed since it was measured.
    """
    found = _measured(clips, cache, channels, workers)
    keys = _track_keys(clips, found)
    return {clip.id: _settled(clip, found[clip.id], tempi, keys) for clip in clips}


def _settled(
    clip: Clip, own: Features, tempi: Mapping[str, Tempo], keys: Mapping[str, tuple[str | None, float | None]]
) -> Features:
    """A clip's features with the tempo and the key that its track gives it."""
    source = clip.version.track.source_sha256
    tempo = tempi.get(source, Tempo())
    bpm = tempo.between(clip.segment.start_sec, clip.segment.start_sec + clip.segment.duration_sec)
    key, margin = (None, None) if _only_drums(clip, own) else clip_key(own.chroma, keys[source])
    confidence = None if bpm is None else max(tempo.confidence, STATED_FROM)
    return replace(own, tempo_bpm=bpm, tempo_confidence=confidence, key=key, key_confidence=margin)


def _track_keys(clips: Sequence[Clip], features: Mapping[str, Features]) -> dict[str, tuple[str | None, float | None]]:
    """The key of each track, from its clips of the recording, or of what else there is where that is not used."""
    chromas: dict[str, dict[str, list[tuple[tuple[float, ...], float]]]] = {}
    for clip in clips:
        version, own = clip.version, features[clip.id]
        of_track = chromas.setdefault(version.track.source_sha256, {})
        if own.chroma and not _only_drums(clip, own):
            of_track.setdefault(version.stems, []).append((own.chroma, clip.segment.duration_sec))
    keys: dict[str, tuple[str | None, float | None]] = {}
    for source, versions in chromas.items():
        heard = versions.get(MIX) or [one for some in versions.values() for one in some]
        mean = mean_chroma([chroma for chroma, _ in heard], [sec for _, sec in heard])
        keys[source] = best_key(mean) if mean else (None, None)
    return keys


def _only_drums(clip: Clip, own: Features) -> bool:
    return clip.version.stems == DRUMS or (own.percussive_share or 0.0) >= _DRUMS_SHARE


def _measured(clips: Sequence[Clip], cache: Cache, channels: int, workers: int) -> dict[str, Features]:
    keys = {clip.id: work_key(FEATURES_VERSION, channels=channels, **clip.place) for clip in clips}
    found: dict[str, Features] = {}
    with stage("listen", len(clips), unit="clips") as progress:
        for clip in clips:
            known = cache.read_json("features", keys[clip.id])
            if known is not None:
                found[clip.id] = Features(**{**known, "chroma": known["chroma"] and tuple(known["chroma"])})
                progress.advance(reused=True)
        groups = list(_groups([clip for clip in clips if clip.id not in found]))
        for index, outcome in run_each(_measure, [_task(group, channels) for group in groups], workers):
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


def _task(group: Sequence[Clip], channels: int) -> _Task:
    version = group[0].version
    return _Task(version.path, channels, version.scan.fold, tuple(clip.segment for clip in group))


def _measure(task: _Task) -> list[Features]:
    heard = read_clips(task.path, task.segments, sample_rate_hz=READ_HZ, channels=task.channels, fold=task.fold)
    both = (np.repeat(samples, 2, axis=0) if len(samples) == 1 else samples for samples in heard)
    return [measure_features(samples, READ_HZ) for samples in both]
