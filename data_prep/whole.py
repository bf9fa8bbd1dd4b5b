"""Is the file all there? What each container says of its own length, where it can be believed.

FFmpeg reads a cut file without complaint and gives the length of what is left, so three things are looked at here:
the data size in a WAV header, the last page of an Ogg file, and declared durations against what was decoded. Formats
without a length of their own (raw AAC, an MP3 without Xing, Info or VBRI header) only have an estimate from the bit
rate, which is not used: a cut in those cannot be told from a short recording, and nothing but the end is missing.
"""

from pathlib import Path
from typing import Any

_ESTIMATED = {"aac", "mp2", "ac3", "eac3", "dts", "loas", "asf"}
_TAIL_BYTES = 128 * 1024
_WAV_SLACK_BYTES = 4096  # some writers count a header or padding into the data
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


def ends_inside(path: Path) -> bool:
    """Whether a WAV file is shorter than its header says, or an Ogg file ends in the middle of a page."""
    with path.open("rb") as file:
        head = file.read(4)
        if head in (b"RIFF", b"RF64", b"BW64"):
            return _wav_is_cut(file, path.stat().st_size)
        return head == b"OggS" and _ogg_is_cut(file, path.stat().st_size)


def _wav_is_cut(file: Any, size: int) -> bool:
    """Walk the chunks to `data`; sizes of 0 and near 4 GiB are left by writers that could not go back."""
    at = 12
    while at + 8 <= size:
        file.seek(at)
        name, length = (header := file.read(8))[:4], int.from_bytes(header[4:], "little")
        if name == b"data":
            return 0 < length < 0xFFFF0000 and at + 8 + length > size + _WAV_SLACK_BYTES
        at += 8 + length + length % 2
    return False


def _ogg_is_cut(file: Any, size: int) -> bool:
    """A page's header tells its length; the last one must end before the file does."""
    start = max(0, size - _TAIL_BYTES)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0 or at + 27 > len(tail):
        return at >= 0
    segments = tail[at + 27 : at + 27 + tail[at + 26]]
    return at + 27 + tail[at + 26] + sum(segments) > len(tail)


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
