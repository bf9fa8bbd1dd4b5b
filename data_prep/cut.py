"""Tracks and their stems → clips, as the base's codec hears them; what has no clip is said, with the reason.

A stem of music that has no such instrument is not silent: separation leaves the others in it, some 20 dB down. A clip
of that would teach drums that are a whisper of a guitar, so a stem is judged against the recording it came from.
"""

from collections.abc import Sequence

import numpy as np

from configs.prep import SegmentSettings
from data_prep.base_files import BaseFiles
from data_prep.clips import Clip, Version
from data_prep.measure import TrackScan
from data_prep.scan import Rejection
from data_prep.segment import Segment, segments
from data_prep.stems import MIX
from data_prep.tracks import Track

BLEED_DB = -20.0
"""A stem that stays so far below the recording holds only what leaked into it."""
_BLEED_MAY_PASS_SHARE = 0.05
"""In so much of a clip, what leaked may be louder than that: the transients of others, mostly."""


def with_music(
    tracks: Sequence[Track], settings: SegmentSettings, files: BaseFiles
) -> tuple[list[Track], list[Rejection]]:
    """The tracks that have clips, and why the others have none: neither would stems of those, so none are made."""
    kept: list[Track] = []
    rejected: list[Rejection] = []
    for track in tracks:
        scan = track.scan.for_channels(files.spec.channels)
        if _segments(scan, settings, files):
            kept.append(track)
        else:
            rejected.append(Rejection("track", track.song.relative, _why_no_clips(scan, settings)))
    return kept, rejected


def cut_clips(
    versions: Sequence[Version], settings: SegmentSettings, files: BaseFiles
) -> tuple[list[Clip], list[Rejection]]:
    """The clips of every version, and what of them is left out, with the reason."""
    clips: list[Clip] = []
    rejected: list[Rejection] = []
    for version in versions:
        scan = version.scan.for_channels(files.spec.channels)
        cut = _segments(scan, settings, files)
        bleed = [] if version.stems == MIX else [part for part in cut if is_bleed(version, part, files.spec.channels)]
        clips += [Clip(version, segment) for segment in cut if segment not in bleed]
        if not cut or bleed:
            why = _why_bleed(bleed, len(cut)) if bleed else _why_no_clips(scan, settings)
            what = "track" if version.stems == MIX else f"stems {version.stems}"
            rejected.append(Rejection(what, version.track.song.relative, why))
    return clips, rejected


def is_bleed(version: Version, segment: Segment, channels: int) -> bool:
    """Whether a stretch of a stem stays 20 dB below the recording's own level there, but for a moment here and there.

    The recording's level is the mean power of the stretch; a stem that plays one phrase in it is no bleed.
    """
    stem = _between(version.scan.for_channels(channels), segment)
    mix = _between(version.track.scan.for_channels(channels), segment)
    if not len(stem) or not len(mix):
        return False
    level_db = 10 * np.log10(np.mean(10 ** (mix / 10)))
    return bool(np.mean(stem > level_db + BLEED_DB) <= _BLEED_MAY_PASS_SHARE)


def _between(scan: TrackScan, segment: Segment) -> np.ndarray:
    first = round(segment.start_sec / scan.window_sec)
    last = round((segment.start_sec + segment.duration_sec) / scan.window_sec)
    return np.asarray(scan.levels_db[first:last])


def _segments(scan: TrackScan, settings: SegmentSettings, files: BaseFiles) -> list[Segment]:
    return segments(scan, settings, files.spec.hop_samples, files.spec.sample_rate_hz)


def _why_bleed(bleed: Sequence[Segment], clips: int) -> str:
    where = ", ".join(f"{part.start_sec:.0f}-{part.start_sec + part.duration_sec:.0f}" for part in bleed[:5])
    more = f" and {len(bleed) - 5} more" if len(bleed) > 5 else ""
    said = (
        "only bleed from the other instruments" if len(bleed) == clips else f"{len(bleed)} of {clips} clips are bleed"
    )
    return f"{said}: {-BLEED_DB:.0f} dB or more below the recording (seconds {where}{more})"


def _why_no_clips(scan: TrackScan, settings: SegmentSettings) -> str:
    shortest, loudest = settings.min_sec, max(scan.levels_db, default=-200.0)
    if loudest < settings.silence_db:
        return f"silent: nothing above {settings.silence_db:g} dB"
    if scan.duration_sec < shortest:
        return f"too short: {scan.duration_sec:.1f} s, the shortest clip is {shortest:g} s (segment.min_sec)"
    return f"no passage of {shortest:g} s (segment.min_sec) between silences"
