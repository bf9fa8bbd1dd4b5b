"""What is heard of whole tracks, in one pass over each: the print that finds copies, and the tempo. On all cores; kept
in the cache.

The tempo is read from the drums where there is a stem of them, which is seldom in doubt where a mix is; else from the
recording. It is the track's, so it holds for every version of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from data_prep.cache import Cache, work_key
from data_prep.clips import Version, changed
from data_prep.decode import AudioError, stream
from data_prep.fold_down import FoldDown
from data_prep.near_duplicates import Pair, is_too_short, near_duplicates
from data_prep.onsets import RATE_HZ, Onsets
from data_prep.pool import run_each
from data_prep.progress import stage
from data_prep.sound_print import SoundPrint
from data_prep.tempo import Tempo, find_tempo
from data_prep.tracks import Track

SOUND_VERSION = 1
_TEMPO_FROM = ("drums", "bass+drums")
_BLOCK_SEC = 30.0


@dataclass(frozen=True)
class TrackSounds:
    """What was heard, by each track's `source_sha256`."""

    tempi: dict[str, Tempo]
    same: list[Pair]
    """Near-duplicates, by the tracks' `source_sha256`."""
    too_short: int = 0
    """How many tracks were too short to be compared with the others."""


@dataclass(frozen=True)
class _Task:
    """An audio file to listen to: plain values, for another process."""

    path: Path
    fold: FoldDown


@dataclass(frozen=True)
class _Heard:
    tempo: Tempo
    print: UInt8[np.ndarray, "T 36"]


def listen_to_tracks(
    tracks: Sequence[Track], versions: Sequence[Version], cache: Cache, *, workers: int
) -> TrackSounds:
    """Listen to every track, and to its drums where they were separated.

    Raises:
        UserError: a song changed since it was measured.
    """
    tasks = {track.source_sha256: (track, _Task(track.song.path, track.scan.fold)) for track in tracks}
    drums = {v.key: v for v in versions if v.stems in _TEMPO_FROM}
    tasks |= {v.key: (v.track, _Task(v.path, v.scan.fold)) for v in drums.values()}
    heard = dict(_heard(tasks, cache, workers))
    tempi = {track.source_sha256: heard[track.source_sha256].tempo for track in tracks}
    for version in sorted(drums.values(), key=lambda v: _TEMPO_FROM.index(v.stems), reverse=True):
        if heard[version.key].tempo.bpm is not None:
            tempi[version.track.source_sha256] = heard[version.key].tempo
    prints = {track.source_sha256: heard[track.source_sha256].print for track in tracks}
    return TrackSounds(tempi, near_duplicates(prints), sum(map(is_too_short, prints.values())))


def _heard(tasks: dict[str, tuple[Track, _Task]], cache: Cache, workers: int) -> Iterator[tuple[str, _Heard]]:
    todo: list[str] = []
    with stage("listen to tracks", len(tasks), unit="tracks") as progress:
        for name, (_, task) in tasks.items():
            tempo, print_ = cache.read_json("tempo", _key(name, task)), cache.read_tensors("prints", _key(name, task))
            if tempo is None or print_ is None:
                todo.append(name)
                continue
            progress.advance(reused=True)
            yield name, _Heard(Tempo.from_json(tempo), print_["print"])
        for index, outcome in run_each(_listen, [tasks[name][1] for name in todo], workers):
            name = todo[index]
            track, task = tasks[name]
            if isinstance(outcome, AudioError | OSError):
                raise changed(track.song.relative, outcome) from outcome
            if isinstance(outcome, Exception):
                raise outcome
            cache.write_tensors("prints", _key(name, task), {"print": outcome.print})
            cache.write_json("tempo", _key(name, task), outcome.tempo.to_json())
            progress.advance()
            yield name, outcome


def _key(name: str, task: _Task) -> str:
    fold = {} if task.fold.is_plain else {"mono": task.fold.mono}
    return work_key(SOUND_VERSION, audio=name, **fold)


def _listen(task: _Task) -> _Heard:
    blocks = stream(task.path, sample_rate_hz=RATE_HZ, channels=1, fold=task.fold, block_sec=_BLOCK_SEC)
    rises, print_ = Onsets(), SoundPrint()
    for block in blocks:
        rises.add(block[0])
        print_.add(block[0])
    return _Heard(find_tempo(rises.result()), print_.result())
