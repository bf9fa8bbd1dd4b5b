"""Song files → measured tracks: each file is hashed and decoded once, copies are found, the unusable rejected."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.cache import Cache, work_key
from data_prep.decode import AudioError, reason
from data_prep.measure import TrackScan, measure, scan_from_json
from data_prep.pool import run_each, run_here
from data_prep.progress import stage
from data_prep.scan import Rejection, SongFile

MEASURE_VERSION = 2
_CHUNK_BYTES = 2**20
_FEW = 8  # files that are read sooner than processes for it have started


@dataclass(frozen=True)
class Track:
    """A song file that decodes. `twin` names an earlier file of other bytes with the same decoded audio."""

    song: SongFile
    source_sha256: str
    scan: TrackScan
    twin: str = ""


def measure_tracks(
    songs: Sequence[SongFile], cache: Cache, *, max_track_sec: float, workers: int, keep_copies: bool = False
) -> tuple[list[Track], list[Rejection]]:
    """Measure every song, those measured before from the cache. A file identical to an earlier one is left out, unless
    `keep_copies`: one loop, or silence, may be a part of several multitracks.
    """
    found = dict(_hashes(songs, cache, workers))
    tracks: list[Track] = []
    rejected: list[Rejection] = []
    unique: dict[str, SongFile] = {}
    copies: list[tuple[str, SongFile]] = []
    for song in songs:
        digest = found[song.relative]
        if not isinstance(digest, str):
            rejected.append(_rejection(song, digest))
            continue
        first = unique.setdefault(digest, song)
        if first is not song and keep_copies:
            copies.append((digest, song))
        elif first is not song:
            unique[digest] = first.with_words_of(song)
            why = f"duplicate of {first.relative}: the same file"
            why += "; what you wrote for it goes there" if song.read else ""
            rejected.append(Rejection("track", song.relative, why))
    scans = _scans(unique, cache, max_track_sec, workers)
    first_with: dict[str, str] = {}
    for digest, song in [*unique.items(), *copies]:
        outcome = scans[digest]
        if not isinstance(outcome, TrackScan):
            rejected.append(_rejection(song, outcome))
            continue
        twin = first_with.setdefault(outcome.audio_sha256, song.relative)
        tracks.append(Track(song, digest, outcome, "" if twin == song.relative else twin))
    return tracks, rejected


def _hashes(songs: Sequence[SongFile], cache: Cache, workers: int) -> Iterator[tuple[str, str | Exception]]:
    """The sha256 of each file, or why it cannot be read. A file of unchanged size and time is not read again."""
    todo: list[tuple[SongFile, str]] = []
    with stage("read files", len(songs), unit="files") as progress:
        for song in songs:
            key = _stat_key(song)
            known = cache.read_json("hashes", key) if key else None
            if known is None:
                todo.append((song, key))
                continue
            progress.advance(reused=True)
            yield song.relative, known
        paths = [song.path for song, _ in todo]
        hashed = run_here(_file_sha256, paths) if len(todo) <= _FEW else run_each(_file_sha256, paths, workers)
        for index, outcome in hashed:
            song, key = todo[index]
            if isinstance(outcome, str) and key:
                cache.write_json("hashes", key, outcome)
            progress.advance()
            yield song.relative, outcome


def _stat_key(song: SongFile) -> str:
    try:
        status = song.path.stat()
    except OSError:
        return ""
    times = [status.st_mtime_ns, status.st_ctime_ns]  # a tag editor may set the first back; nobody sets the second
    return work_key(2, path=ascii(str(song.path)), size=status.st_size, times=times, inode=status.st_ino)


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _scans(
    unique: dict[str, SongFile], cache: Cache, max_track_sec: float, workers: int
) -> dict[str, TrackScan | Exception]:
    """The measurements of each distinct file by its hash, or why it cannot be used."""
    keys = {digest: work_key(MEASURE_VERSION, source=digest, max_sec=max_track_sec) for digest in unique}
    results: dict[str, TrackScan | Exception] = {}
    with stage("measure", len(unique), unit="tracks") as progress:
        for digest, key in keys.items():
            known = cache.read_json("tracks", key)
            if known is not None:
                results[digest] = _from_json(known)
                progress.advance(reused=True)
        todo = [digest for digest in unique if digest not in results]
        function = partial(measure, max_sec=max_track_sec)
        for index, outcome in run_each(function, [unique[digest].path for digest in todo], workers):
            digest = todo[index]
            results[digest] = outcome
            if isinstance(outcome, TrackScan | AudioError):  # a disk that failed, say, may be well next time
                cache.write_json("tracks", keys[digest], _to_json(outcome))
            progress.advance()
    return results


def _to_json(outcome: TrackScan | AudioError) -> dict[str, Any]:
    return {"why": outcome.why} if isinstance(outcome, AudioError) else {"scan": asdict(outcome)}


def _from_json(value: dict[str, Any]) -> TrackScan | AudioError:
    if "why" in value:
        return AudioError(value["why"])
    return scan_from_json(value["scan"])


def _rejection(song: SongFile, error: Any) -> Rejection:
    """The reason in plain words. Whatever a strange file made the decoder raise, the other songs go on."""
    if isinstance(error, AudioError | OSError):
        why = reason(error)
    else:
        why = f"decoding it failed: {type(error).__name__}: {error}"
    return Rejection("track", song.relative, why)
