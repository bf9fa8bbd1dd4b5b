"""Which passages of a person's songs are measured: all of them, or so many spread evenly over all music."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from configs.errors import UserError
from data_prep.clips import read_clips
from data_prep.decode import AudioError, Source, probe, reason, stream
from data_prep.scan import scan
from data_prep.segment import Segment


@dataclass(frozen=True)
class Passage:
    """A stretch of a song."""

    song: str
    path: Path
    segment: Segment

    @property
    def title(self) -> str:
        """Song and moment."""
        start = int(self.segment.start_sec)
        return f"{self.song}, {start // 60}:{start % 60:02d}"

    def read(self, sample_rate_hz: int, channels: int) -> Float[np.ndarray, "C N"]:
        """Its audio at a rate."""
        return _read(self.path, self.segment, sample_rate_hz, channels)


@lru_cache(maxsize=8)
def _read(path: Path, segment: Segment, sample_rate_hz: int, channels: int) -> Float[np.ndarray, "C N"]:
    try:
        return next(read_clips(path, [segment], sample_rate_hz=sample_rate_hz, channels=channels))
    except (AudioError, OSError) as error:
        raise UserError(
            f"A song cannot be read: {reason(error)}.", where=str(path), fix="Repair it, or take it out of the folder."
        ) from error


def choose_passages(songs: Path, *, seconds: float, at_most: int) -> tuple[list[Passage], list[str]]:
    """Passages of equal length, spread over all songs, and what was left out with the reason.

    Raises:
        UserError: no song in the folder can be read, or all are shorter than a passage.
    """
    found, left_out = scan(songs), []
    every: list[Passage] = []
    for song in found.songs:
        try:
            duration_sec = _duration_sec(song.path)
        except (AudioError, OSError) as error:
            left_out.append(f"{song.relative}: {reason(error)}")
            continue
        count = int(duration_sec // seconds)
        if count == 0:
            left_out.append(f"{song.relative}: shorter than a passage of {seconds:g} s")
        every += [Passage(song.relative, song.path, Segment(at * seconds, seconds)) for at in range(count)]
    if not every:
        raise UserError(
            "There is nothing to measure in this folder.",
            where="; ".join(left_out[:3]) or str(songs),
            fix=f"Give a folder with audio of at least {seconds:g} s, or another --seconds.",
        )
    return _spread(every, at_most), left_out


def _duration_sec(path: Path) -> float:
    """As the file states it; counted, where it states nothing that can be believed."""
    stated_sec = probe(path).duration_sec
    if stated_sec is not None:
        return stated_sec
    source = Source()
    for _ in stream(path, source=source):
        pass
    return source.duration_sec


def _spread(every: Sequence[Passage], at_most: int) -> list[Passage]:
    count = min(at_most, len(every))
    return [every[(2 * number + 1) * len(every) // (2 * count)] for number in range(count)]
