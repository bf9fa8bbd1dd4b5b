"""A clip: a stretch of one version of a track (the recording itself, or stems of it), and how its audio is read."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from configs.errors import UserError
from data_prep.decode import AudioError, reason, stream
from data_prep.fold_down import FoldDown
from data_prep.measure import TrackScan
from data_prep.segment import Segment
from data_prep.tracks import Track

BLOCK_SEC = 5.0


@dataclass(frozen=True)
class Version:
    """What is learned from of a track: the recording or stems of it, an audio file measured like a track.

    `key` names the audio by all that it was made from; two versions with one key sound the same.
    """

    track: Track
    stems: str
    path: Path
    scan: TrackScan
    key: str


@dataclass(frozen=True)
class Clip:
    """A stretch of a version. `id` depends on the source's bytes, the stems and the place, and on nothing else."""

    version: Version
    segment: Segment

    @property
    def id(self) -> str:
        """16 hex digits."""
        place = f"{self.segment.start_sec:.6f} {self.segment.duration_sec:.6f}"
        name = f"{self.version.track.source_sha256} {self.version.stems} {place}"
        return hashlib.sha256(name.encode()).hexdigest()[:16]

    @property
    def place(self) -> dict[str, Any]:
        """What the clip's audio depends on besides its channels, for the names of work done on it."""
        fold = self.version.scan.fold
        return {
            "audio": self.version.key,
            "start_sec": round(self.segment.start_sec, 6),
            "duration_sec": round(self.segment.duration_sec, 6),
            **({} if fold.is_plain else {"fold": asdict(fold)}),
        }


def read_clips(
    path: Path, segments: Sequence[Segment], *, sample_rate_hz: int, channels: int, fold: FoldDown | None = None
) -> Iterator[Float[np.ndarray, "C _"]]:
    """The audio of each segment of a track, decoded in one pass; segments are in order and do not overlap. `fold` as
    for `decode.stream`.

    Raises:
        AudioError: the file does not decode, or ends before a segment does: it changed since it was measured.
        OSError: it cannot be read any more.
    """
    blocks = stream(path, sample_rate_hz=sample_rate_hz, channels=channels, fold=fold, block_sec=BLOCK_SEC)
    held, begins = np.zeros((channels, 0), np.float32), 0  # decoded and still needed, and the sample it begins at
    for segment in segments:
        start, end = (round(sec * sample_rate_hz) for sec in (segment.start_sec, _end_sec(segment)))
        parts = [held[:, start - begins :]]
        ends = begins + held.shape[1]
        while ends < end and (block := next(blocks, None)) is not None:
            parts.append(block[:, max(0, start - ends) :])
            ends += block.shape[1]
        if ends < end - sample_rate_hz // 100:
            raise AudioError("it ends earlier than when it was measured")
        audio = np.concatenate(parts, axis=1)
        yield audio[:, : end - start]
        held, begins = audio[:, end - start :], end


def _end_sec(segment: Segment) -> float:
    return segment.start_sec + segment.duration_sec


def changed(song: str, error: AudioError | OSError) -> UserError:
    """What it means that a song decoded when it was measured and does not now."""
    return UserError(
        "A song changed or went away while it was being prepared.",
        where=f"{song}: {reason(error)}",
        fix="Run the same command again when the songs stay as they are: it goes on from here.",
    )
