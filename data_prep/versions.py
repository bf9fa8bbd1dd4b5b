"""Measured tracks → the versions that are learned from: the recording itself, and stems of it where asked for."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from configs.prep import StemSettings
from data_prep.cache import Cache, work_key
from data_prep.clips import Version, changed
from data_prep.decode import AudioError
from data_prep.measure import measure, scan_from_json
from data_prep.progress import Stage, stage
from data_prep.safe_write import GOES_ON, remove, storing
from data_prep.separate import Selection, Separator, check_selections, load_separator, separate
from data_prep.tracks import MEASURE_VERSION, Track

SEPARATE_VERSION = 1


@dataclass(frozen=True)
class Separation:
    """Versions of all tracks, and the separator's name and fingerprint, None where none was needed."""

    versions: list[Version]
    separator: dict[str, str] | None


def make_versions(
    tracks: Sequence[Track],
    selections: Sequence[Selection],
    settings: StemSettings,
    cache: Cache,
    *,
    device: torch.device,
    seed: int,
) -> Separation:
    """Every selection of every track, in their order. Separated stems are kept in the cache.

    Raises:
        UserError: the separator cannot be loaded or lacks a stem, or a song changed since it was measured.
    """
    whole = {
        track.source_sha256: Version(track, "mix", track.song.path, track.scan, track.source_sha256) for track in tracks
    }
    wanted = [selection for selection in selections if selection.needs]
    if not wanted:
        return Separation([whole[track.source_sha256] for track in tracks for _ in selections], None)
    separator = load_separator(settings.model, str(device))
    check_selections(selections, separator.sources)
    versions: list[Version] = []
    seconds = round(sum(track.scan.duration_sec for track in tracks))
    with stage("separate", seconds, unit="seconds of music") as progress:
        for track in tracks:
            stems = _stems_of(_Job(track, wanted, settings, separator, seed), cache, progress)
            versions += [stems[s.name] if s.needs else whole[track.source_sha256] for s in selections]
    return Separation(versions, {"model": settings.model, "fingerprint": separator.fingerprint})


@dataclass(frozen=True)
class _Job:
    """What is wanted of one track, and all that it depends on."""

    track: Track
    selections: list[Selection]
    settings: StemSettings
    separator: Separator
    seed: int

    def key(self, selection: Selection) -> str:
        shifts = {"shifts": self.settings.shifts, "seed": self.seed} if self.settings.shifts else {}
        fold = {} if self.track.scan.fold.is_plain else {"fold": asdict(self.track.scan.fold)}
        return work_key(
            SEPARATE_VERSION,
            source=self.track.source_sha256,
            separator=self.separator.fingerprint,
            overlap=self.settings.overlap,
            stems=selection.name,
            **shifts,
            **fold,
        )


def _stems_of(job: _Job, cache: Cache, progress: Stage) -> dict[str, Version]:
    found = {s.name: version for s in job.selections if (version := _known(job, s, cache)) is not None}
    missing = [s for s in job.selections if s.name not in found]
    seconds = job.track.scan.duration_sec
    if not missing:
        progress.advance(round(seconds), reused=True)
        return found
    folder = cache.folder / f"stems-{job.track.source_sha256[:16]}-{os.getpid()}.part"
    shown = 0

    def show(share: float) -> None:
        nonlocal shown
        progress.advance(round(share * seconds) - shown)
        shown = round(share * seconds)

    try:
        paths = separate(
            job.track.song.path,
            missing,
            job.separator,
            folder,
            fold=job.track.scan.fold,
            overlap=job.settings.overlap,
            shifts=job.settings.shifts,
            seed=job.seed,
            on_progress=show,
        )
        found.update({s.name: _keep(job, s, paths[s.name], cache) for s in missing})
    except (AudioError, OSError) as error:
        raise changed(job.track.song.relative, error) from error
    finally:
        remove(folder)
    return found


def _known(job: _Job, selection: Selection, cache: Cache) -> Version | None:
    """The version as an earlier run left it, or None when it is not there or not whole."""
    key = job.key(selection)
    entry = cache.read_json("stems", key)
    path = cache.path("stems", key, ".wav")
    if entry is None or not path.is_file() or path.stat().st_size != entry["bytes"]:
        return None
    if entry["measure"] != MEASURE_VERSION:
        entry = _entry(path)
        cache.write_json("stems", key, entry)
    return Version(job.track, selection.name, path, scan_from_json(entry["scan"]), key)


def _entry(path: Path) -> dict[str, Any]:
    """What is kept of a stem that is whole."""
    return {"measure": MEASURE_VERSION, "bytes": path.stat().st_size, "scan": asdict(measure(path))}


def _keep(job: _Job, selection: Selection, written: Path, cache: Cache) -> Version:
    """Measure a stem and move it to its place; the entry that says it is whole comes last."""
    key = job.key(selection)
    path = cache.path("stems", key, ".wav")
    entry = _entry(written)
    with storing(path, again=GOES_ON):
        path.parent.mkdir(parents=True, exist_ok=True)
        written.replace(path)
    cache.write_json("stems", key, entry)
    return Version(job.track, selection.name, path, scan_from_json(entry["scan"]), key)
