"""A person's own multitracks: folders with a file per part, aligned, brought to one file per stem without separation.

Which stem a file is follows from its name: by a table that the person gives, else by the words in it (kick and snare
are drums). Several files of one stem are summed. Their sum over all stems is the recording that clips are judged by.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import PurePosixPath

import numpy as np

from data_prep.cache import Cache, work_key
from data_prep.clips import Version
from data_prep.decode import stream
from data_prep.measure import measure, scan_from_json
from data_prep.pairs import Pair
from data_prep.progress import stage
from data_prep.scan import Rejection
from data_prep.stem_names import stem_of
from data_prep.stems import INSTRUMENTAL, MIX, VOCALS, Selection
from data_prep.tracks import MEASURE_VERSION, Track
from data_prep.write_audio import FloatWavWriter

APART_SEC = 0.01
"""So much may the lengths of a folder's files differ: encoders pad."""


@dataclass(frozen=True)
class OwnStems:
    """Versions of every folder that can be used (its sum is the track's own), and what is left out."""

    tracks: list[Track]
    versions: list[Version]
    rejected: list[Rejection]


def own_stems(
    files: Sequence[Track], pair: Pair, selections: Sequence[Selection], table: Mapping[str, str], cache: Cache
) -> OwnStems:
    """One file per selection and the sum of all files, for every folder that fits the pair; kept in the cache."""
    folders: dict[str, list[Track]] = {}
    for track in files:
        folders.setdefault(str(PurePosixPath(track.song.relative).parent), []).append(track)
    found = OwnStems([], [], [])
    first_with: dict[str, str] = {}
    with stage("multitracks", len(folders), unit="folders") as progress:
        for folder, tracks in folders.items():
            stems = [stem_of(track.song.relative, table) for track in tracks]
            digest = _digest(tracks, stems)
            why = mismatch(tracks, pair, table)
            if not why and digest in first_with:
                why = f"duplicate of {first_with[digest]}: the same files"
            if why:
                found.rejected.append(Rejection("multitrack", folder, why))
            else:
                first_with[digest] = folder
                track, versions = _summed(folder, tracks, stems, digest, selections, cache)
                found.tracks.append(track)
                found.versions.extend(versions)
            progress.advance()
    return found


def mismatch(tracks: Sequence[Track], pair: Pair, table: Mapping[str, str]) -> str:
    """Why a folder's files are no multitrack of this pair; empty where they are."""
    rates = sorted({track.scan.sample_rate_hz for track in tracks})
    if len(rates) > 1:
        return f"its files have different sample rates: {', '.join(map(str, rates))} Hz"
    lengths = sorted((track.scan.duration_sec, track.song.path.name) for track in tracks)
    if lengths[-1][0] - lengths[0][0] > APART_SEC:
        (short, one), (long, other) = lengths[0], lengths[-1]
        return f"its files are not equally long: {one} {short:.2f} s, {other} {long:.2f} s"
    present = {stem_of(track.song.relative, table) for track in tracks}
    missing = [part for part in pair.target.parts if part not in present]
    if missing:
        return f"it has no {missing[0]}, only {', '.join(sorted(present))}"
    if not present & {stem.name for stem in pair.context}:
        return f"it has nothing of the context {pair.context_name}, only {', '.join(sorted(present))}"
    return ""


def _digest(tracks: Sequence[Track], stems: Sequence[str]) -> str:
    joined = "\n".join(sorted(f"{track.source_sha256} {stem}" for track, stem in zip(tracks, stems, strict=True)))
    return hashlib.sha256(joined.encode()).hexdigest()


def _summed(
    folder: str,
    tracks: Sequence[Track],
    stems: Sequence[str],
    digest: str,
    selections: Sequence[Selection],
    cache: Cache,
) -> tuple[Track, list[Version]]:
    mix = _version(MIX, tracks, digest, cache)
    first = tracks[0].song
    words = [caption for track in tracks for caption in track.song.own_captions]
    song = replace(first, path=mix[0], relative=folder, own_captions=list(dict.fromkeys(words)))
    whole = Track(song, digest, mix[1])
    versions = []
    for selection in selections:
        wanted = set(stems) - {VOCALS} if selection.parts == (INSTRUMENTAL,) else set(selection.parts)
        parts = [track for track, stem in zip(tracks, stems, strict=True) if stem in wanted]
        path, scan = _version(selection.name, parts, digest, cache, silent_as=tracks[0])
        versions.append(Version(whole, selection.name, path, scan, work_key(1, own=digest, stems=selection.name)))
    return whole, versions


def _version(name: str, parts: Sequence[Track], digest: str, cache: Cache, silent_as: Track | None = None):
    """The sum of these files as a file of the cache, and its measurements; silence where there is none."""
    key = work_key(1, own=digest, stems=name)
    path, known = cache.path("stems", key, ".wav"), cache.read_json("stems", key)
    if known is not None and known["measure"] == MEASURE_VERSION and path.is_file():
        return path, scan_from_json(known["scan"])
    path.parent.mkdir(parents=True, exist_ok=True)
    like = parts[0] if parts else silent_as
    assert like is not None
    rate_hz, samples = like.scan.sample_rate_hz, round(like.scan.duration_sec * like.scan.sample_rate_hz)
    with ExitStack() as stack:
        writer = stack.enter_context(FloatWavWriter(path, rate_hz, 2, samples))
        left = samples
        for blocks in zip_longest(*(stream(track.song.path, channels=2, fold=track.scan.fold) for track in parts)):
            present = [block for block in blocks if block is not None]
            total = np.zeros((2, max(block.shape[1] for block in present)), np.float32)
            for block in present:
                total[:, : block.shape[1]] += block
            writer.write(total[:, :left])
            left -= min(left, total.shape[1])
        while left > 0:
            writer.write(np.zeros((2, min(left, 10 * rate_hz)), np.float32))
            left -= min(left, 10 * rate_hz)
    scan = measure(path)
    cache.write_json("stems", key, {"measure": MEASURE_VERSION, "scan": asdict(scan)})
    return path, scan
