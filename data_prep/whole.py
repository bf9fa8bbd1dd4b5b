"""Is the file all there? What each container says of its own length, where it can be believed.

FFmpeg reads a cut file without complaint and gives the length of what is left, so three things are looked at here:
the size that a header gives the sound (`chunks`), the last page of an Ogg file (`ogg`), and declared durations
against what was decoded. Formats
without a length of their own (raw AAC, an MP3 without Xing, Info or VBRI header) only have an estimate from the bit
rate, which is not used: a cut in those cannot be told from a short recording, and nothing but the end is missing.
"""

from pathlib import Path
from typing import Any

from data_prep import ogg
from data_prep.audio_file import AudioError, clock
from data_prep.chunks import sound_is

_ESTIMATED = {"aac", "mp2", "ac3", "eac3", "dts", "loas", "asf"}
_MP3_HEADERS = (b"Xing", b"Info", b"VBRI")


def declared_sec(path: Path, container: Any, stream: Any) -> float | None:
    """The length of an open PyAV audio stream as its container states it, if that can be believed."""
    kind = container.format.name
    if kind in _ESTIMATED or kind == "wav" or (kind == "mp3" and not _has_mp3_length(path)):
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if "DURATION" in stream.metadata:
        return _clock_sec(stream.metadata["DURATION"])
    alone = all(s.type == "audio" or s.disposition & s.disposition.attached_pic for s in container.streams)
    return container.duration / 1e6 if alone and container.duration else None


def falls_short(decoded_sec: float, declared: float | None) -> bool:
    """Whether so much is missing that the file must be cut off: more than half a second and one percent."""
    return declared is not None and declared - decoded_sec > 0.5 + 0.01 * declared


def check_ends(path: Path, decoded_sec: float) -> None:
    """Whether the file ends where its last chunk or page does, and its header counts all of the sound.

    Raises:
        AudioError: it does not.
    """
    verdict, count = sound_is(path)
    if verdict == "more":
        raise AudioError(
            f"damaged header: it counts {clock(decoded_sec)} of sound, and {_size(count)} more follow that it leaves "
            "out; an audio editor that imports raw data can read all of it"
        )
    if verdict == "cut" or (_begins_with(path, b"OggS") and ogg.is_cut(path)):
        raise AudioError(f"truncated at {clock(decoded_sec)}: the file ends in the middle of its data")


def chain_that_changes(path: Path) -> str:
    """What to say of an Ogg file whose recordings do not share one format; nothing for any other file."""
    links = ogg.links(path) if _begins_with(path, b"OggS") else []
    kinds = list(dict.fromkeys(map(str, links)))
    if len(links) < 2:
        return ""
    how = f"that change their format ({' to '.join(kinds[:3])})" if len(kinds) > 1 else "that differ in their codec"
    return f"{len(links)} recordings joined in one Ogg file {how}: make a file of each, with oggsplit for instance"


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.0f} kB"


def _has_mp3_length(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(10)
        skip = 0
        if head[:3] == b"ID3" and len(head) == 10:  # the size has seven bits per byte
            skip = 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(skip)
        start = file.read(4096)
    return any(header in start for header in _MP3_HEADERS)


def _clock_sec(text: str) -> float | None:
    """Matroska's 00:03:21.500000000 in seconds."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None
