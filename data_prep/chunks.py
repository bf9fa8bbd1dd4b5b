"""Where the sound lies in a file made of chunks, each with its own size: is it all there, and is it all of it?

WAV, RF64 and BW64 (EBU Tech 3306), Sony Wave64, CAF, AIFF and 8SVX, AU, AVI, and Creative's VOC. Readers take what the
sizes say, or what is left of the file, without a word: half a file that was cut, or half a recording whose header
was written before it ended.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_SLACK_BYTES = 4096  # some writers count a header or padding into the data
_OPEN_END = 0xFFFF_0000  # sizes of 0 and near 4 GiB are left by writers that could not go back
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_DATA = b"data" + bytes.fromhex("f3acd3118cd100c04f8edb8a")
_MORE_BYTES = 4 * _SLACK_BYTES
Verdict = Literal["whole", "cut", "more"]


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    start: int
    """Where its content begins."""
    length: int | None
    """None where it goes on to the end of the file."""
    next: int


def sound_is(path: Path) -> tuple[Verdict, int]:
    """`cut` and the bytes that are missing, `more` and the bytes of sound that the header leaves out, or `whole`.

    Files of other kinds, and those whose sound cannot be found, are `whole` as far as this can tell.
    """
    if path.stat().st_size < 16:
        return "whole", 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        walk, sound = _kind(data)
        if walk is None:
            return "whole", 0
        return _verdict(walk, sound, data)


def _verdict(chunks: Iterator[_Chunk], sound: frozenset[bytes], data: mmap.mmap) -> tuple[Verdict, int]:
    size = len(data)
    for chunk in chunks:
        if chunk.name not in sound:
            continue
        if chunk.length is None:
            return "whole", 0
        missing = chunk.start + chunk.length - size
        if missing > _SLACK_BYTES:
            return "cut", missing
        if len(sound) > 1:  # the sound is in many places, and the file may end after any of them
            continue
        begins = _after_chunks(chunks, chunk.next, size) if missing < 0 else size
        more = size - begins
        return ("more", more) if more > max(_MORE_BYTES, chunk.length // 100) and any(data[begins:]) else ("whole", 0)
    return "whole", 0


def _after_chunks(rest: Iterator[_Chunk], at: int, size: int) -> int:
    """Where the chunks after the sound end; what follows is sound which the header does not count, if anything."""
    for chunk in rest:
        if not _is_name(chunk.name) or chunk.next > size + _SLACK_BYTES:
            break
        at = chunk.next
    return min(at, size)


def _is_name(name: bytes) -> bool:
    return all(32 <= byte < 127 for byte in name[:4])


def _kind(data: mmap.mmap) -> tuple[Iterator[_Chunk] | None, frozenset[bytes]]:
    """How to walk over a file's chunks, and which of them hold the sound."""
    head, form = data[:4], data[8:12]
    if head in (b"RIFF", b"RIFX", b"RF64", b"BW64") and form == b"WAVE":
        return _iff(data, "big" if head == b"RIFX" else "little"), frozenset({b"data"})
    if head == b"RIFF" and form == b"AVI ":
        whole = _Chunk(b"RIFF", 8, int.from_bytes(data[4:8], "little") or None, len(data))
        return iter([whole]), frozenset({b"RIFF", b"LIST"})
    if head == b"FORM" and form in (b"AIFF", b"AIFC"):
        return _iff(data, "big"), frozenset({b"SSND"})
    if head == b"FORM" and form in (b"8SVX", b"16SV"):
        return _iff(data, "big"), frozenset({b"BODY"})
    if head == b".snd":
        start, length = int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:12], "big")
        known = length if 0 < length < _OPEN_END else None
        return iter([_Chunk(b"snd", start, known, start + length)]), frozenset({b"snd"})
    if data[:16] == _W64_RIFF:
        return _w64(data), frozenset({_W64_DATA})
    if head == b"caff":
        return _caf(data), frozenset({b"data"})
    if data[:19] == b"Creative Voice File":
        return _voc(data), frozenset({b"\x01", b"\x02", b"\x09"})
    return None, frozenset()


def _iff(data: mmap.mmap, order: Literal["little", "big"]) -> Iterator[_Chunk]:
    """32-bit sizes, content padded to an even number of bytes; `ds64` holds those that do not fit."""
    at, wide = 12, None
    while at + 8 <= len(data):
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], order)
        if name == b"ds64" and length >= 16:
            wide = int.from_bytes(data[at + 16 : at + 24], "little")
        if name == b"data" and wide and length >= _OPEN_END:
            length = wide
        unknown = name in (b"data", b"SSND", b"BODY") and (length == 0 or _OPEN_END <= length < 2**32)
        end = at + 8 + length + length % 2
        yield _Chunk(name, at + 8, None if unknown and length != wide else length, end)
        at = end


def _w64(data: mmap.mmap) -> Iterator[_Chunk]:
    """Names of 16 bytes; sizes of 64 bits that count name and size; content padded to 8 bytes."""
    at = 40
    while at + 24 <= len(data):
        name, length = data[at : at + 16], int.from_bytes(data[at + 16 : at + 24], "little")
        unknown = length <= 24 or length >= 2**62
        end = at + max(24, length + -length % 8)
        yield _Chunk(name, at + 24, None if unknown else length - 24, end)
        at = end


def _caf(data: mmap.mmap) -> Iterator[_Chunk]:
    """Signed sizes of 64 bits, -1 for a recording that was still going on."""
    at = 8
    while at + 12 <= len(data):
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 12], "big", signed=True)
        end = len(data) if length < 0 else at + 12 + length
        yield _Chunk(name, at + 12, length if length > 0 else None, end)
        at = end


def _voc(data: mmap.mmap) -> Iterator[_Chunk]:
    """A byte for the kind, 24 bits for the size; kind 0 ends the file."""
    at = int.from_bytes(data[20:22], "little")
    while at + 4 <= len(data) and data[at]:
        length = int.from_bytes(data[at + 1 : at + 4], "little")
        yield _Chunk(data[at : at + 1], at + 4, length, at + 4 + length)
        at += 4 + length
