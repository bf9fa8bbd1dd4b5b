"""Which tracks are copies of one recording, exact or only to the ear: they are learned or held out together."""

from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.near_duplicates import Pair, groups
from data_prep.tracks import Track


@dataclass(frozen=True)
class Copies:
    """By each track's `source_sha256`: a name for its music that copies share, and what to say of it."""

    music: dict[str, str]
    flags: dict[str, list[str]]


def copies_of(tracks: Sequence[Track], same: Sequence[Pair]) -> Copies:
    """Put the tracks together that decode to the same samples (`Track.twin`), or sound the same.

    A flag is on every track of a pair: `same_audio_as:` for equal samples, on the later one; `sounds_like:` with the
    other's name else.
    """
    by_source = {track.source_sha256: track for track in tracks}
    first_with: dict[str, str] = {}
    exact = []
    for track in tracks:
        first = first_with.setdefault(track.scan.audio_sha256, track.source_sha256)
        if first != track.source_sha256:
            exact.append(Pair(first, track.source_sha256, 1.0))
    leaders = groups(list(by_source), [*exact, *same])
    flags = {source: [f"same_audio_as:{track.twin}"] if track.twin else [] for source, track in by_source.items()}
    equal = {(pair.first, pair.second) for pair in exact}
    for pair in same:
        if (pair.first, pair.second) not in equal:
            flags[pair.first].append(f"sounds_like:{by_source[pair.second].song.relative}")
            flags[pair.second].append(f"sounds_like:{by_source[pair.first].song.relative}")
    return Copies({source: by_source[leader].scan.audio_sha256 for source, leader in leaders.items()}, flags)
