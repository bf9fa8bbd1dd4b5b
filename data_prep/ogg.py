"""The pages of an Ogg file (RFC 3533), as far as they tell whether it is whole and how many recordings it holds.

Ogg files may be joined end to end; each part, a link of the chain, begins with pages marked as first ones, and may
have another rate or other channels. Radio streams are recorded so.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path

_HEADER_BYTES = 27
_TAIL_BYTES = 128 * 1024
_FIRST_PAGE = 2


@dataclass(frozen=True)
class Link:
    """One recording of a chain: where its bytes begin, and its rate and channels where its codec is known."""

    start_bytes: int
    sample_rate_hz: int
    channels: int

    def __str__(self) -> str:
        return f"{self.sample_rate_hz} Hz, {self.channels} channel{'s' if self.channels != 1 else ''}"


def links(path: Path) -> list[Link]:
    """The recordings that an Ogg file is a chain of, in order; empty for any other file."""
    if path.stat().st_size < _HEADER_BYTES:
        return []
    found: list[Link] = []
    in_headers = False  # streams that sound together (video, say) begin together too: they are one link
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = 0
        while data[at : at + 4] == b"OggS" and at + _HEADER_BYTES <= len(data):
            first = bool(data[at + 5] & _FIRST_PAGE)
            body = at + _HEADER_BYTES + data[at + 26]
            if first and not in_headers:
                found.append(Link(at, *_shape(data[body : body + 64])))
            elif first and not found[-1].channels:
                found[-1] = Link(found[-1].start_bytes, *_shape(data[body : body + 64]))
            in_headers = first
            at = body + sum(data[at + _HEADER_BYTES : body])
    return found


def _shape(packet: bytes) -> tuple[int, int]:
    """Rate and channels from a codec's first packet: Vorbis, Opus (whose decoders run at 48 kHz), FLAC; else zeros."""
    if packet[:7] == b"\x01vorbis":
        return int.from_bytes(packet[12:16], "little"), packet[11]
    if packet[:8] == b"OpusHead":
        return 48_000, packet[9]
    if packet[:5] == b"\x7fFLAC" and len(packet) >= 37:
        bits = int.from_bytes(packet[27:30], "big")  # 20 bits of rate, 3 of channels - 1
        return bits >> 4, (bits >> 1 & 7) + 1
    return 0, 0


def is_cut(path: Path) -> bool:
    """Whether the last page, whose header tells its length, ends after the file does."""
    size = path.stat().st_size
    start = max(0, size - _TAIL_BYTES)
    with path.open("rb") as file:
        file.seek(start)
        tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0 or at + _HEADER_BYTES > len(tail):
        return at >= 0
    segments = tail[at + _HEADER_BYTES : at + _HEADER_BYTES + tail[at + 26]]
    return at + _HEADER_BYTES + tail[at + 26] + sum(segments) > len(tail)
