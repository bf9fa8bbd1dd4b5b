"""Find the songs in a folder, and what their owner says of them. It reads the folder and never writes to it.

Every regular file is taken for a song except these, which are passed over in silence: hidden files and folders (their
name begins with a dot, which takes in macOS's `._song.mp3`), `__MACOSX`, and files of kinds that lie around music
(text, pictures, playlists, scores: see `_NOT_AUDIO`) unless their first bytes say audio. What is no audio after all
is found out when it is decoded, and rejected there with the reason. Links are followed; a folder is read once,
however many links lead to it.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from configs.errors import UserError
from data_prep.metadata import MetadataRow, read_metadata
from data_prep.names import printable
from data_prep.sidecar import read_sidecars

_KINDS = (
    "txt json jsonl csv tsv md rst rtf pdf doc docx odt html htm xml yaml yml toml ini cfg log url nfo lnk db "
    "jpg jpeg png gif webp bmp tif tiff svg ico psd heic avif lrc cue m3u m3u8 pls asx xspf sfv md5 sha256 "
    "mid midi kar sf2 mscz musicxml gp3 gp4 gp5 gpx ptb asd reapeaks rpp als flp zip gz bz2 xz 7z rar tar py"
)
_NOT_AUDIO = frozenset(_KINDS.split())
_MAGIC = (b"fLaC", b"OggS", b"ID3", b"FORM", b"caff", b"wvpk", b"MAC ", b"\x1aE\xdf\xa3", b"0&\xb2u", b"RF64", b"BW64")
_METADATA = ("metadata.jsonl", "metadata.csv")
_ALWAYS_SKIPPED = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information"})


@dataclass(frozen=True)
class SongFile:
    """A file to prepare, and what its owner says of it."""

    path: Path
    relative: str
    """Its place below the song folder, with forward slashes; bytes that are no UTF-8 are written as \\xNN."""
    own_captions: list[str] = field(default_factory=list)
    """The owner's words, from the sidecar first, then from metadata files."""
    fields: dict[str, str] = field(default_factory=dict)
    """Named facts (genre, bpm, key, …), lower-case names; a sidecar's win over a metadata file's."""


@dataclass(frozen=True)
class Rejection:
    """A thing that was left out: a line of rejected.jsonl."""

    what: str
    where: str
    why: str


@dataclass(frozen=True)
class ScanResult:
    """Both in an order that depends on names alone."""

    songs: list[SongFile]
    rejected: list[Rejection]


def scan(folder: Path) -> ScanResult:
    """List the songs of a folder and all below it.

    Raises:
        UserError: the folder does not exist, is a file, or cannot be read.
    """
    check_folder(folder)
    walk = _Walk(folder)
    found = list(walk.files(folder, ()))
    rows, refused = _all_metadata(folder, [f for f in found if f.name in _METADATA])
    audio = [f for f in found if f.name not in _METADATA and _may_be_audio(f)]
    songs, complaints = [], walk.rejected + refused
    rows_of: dict[str, list[MetadataRow]] = {}
    for row in rows:
        rows_of.setdefault(row.song, []).append(row)
    for path in audio:
        relative = _relative(path, folder)
        song, more = _song(path, relative, rows_of.get(relative, []))
        songs.append(song)
        complaints += more
    complaints += _rows_without_song(rows, folder, {song.relative for song in songs})
    return ScanResult(sorted(songs, key=lambda s: s.relative), sorted(complaints, key=lambda r: (r.where, r.why)))


def check_folder(folder: Path) -> None:
    """Whether there is a song folder that can be read.

    Raises:
        UserError: it does not exist, is a file, or cannot be read.
    """
    try:
        os.scandir(folder).close()
    except FileNotFoundError as error:
        fix = "give the folder that holds your songs"
        raise UserError("there is no such folder", where=str(folder), fix=fix) from error
    except NotADirectoryError as error:
        fix = f"give the folder it lies in: {folder.parent}"
        raise UserError("this is a file, and a folder of songs is wanted", where=str(folder), fix=fix) from error
    except OSError as error:
        raise UserError(f"the song folder cannot be read: {error.strerror}", where=str(folder)) from error


class _Walk:
    """One walk over a folder tree; collects what cannot be read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rejected: list[Rejection] = []
        self.seen: set[tuple[int, int]] = set()

    def files(self, folder: Path, parents: tuple[tuple[int, int], ...]) -> Iterator[Path]:
        """Regular files below a folder, by name; folders already read are left out, a loop is reported."""
        try:
            status = folder.stat()
            entries = sorted(folder.iterdir())
        except OSError as error:
            self._reject("folder", folder, f"cannot be read: {error.strerror}")
            return
        identity = (status.st_dev, status.st_ino)
        if identity in self.seen:
            loop = identity in parents
            self._reject(
                "folder", folder, "a link back to a folder it lies in" if loop else "a link to a folder read before"
            )
            return
        self.seen.add(identity)
        for entry in entries:
            if not entry.name.startswith(".") and entry.name not in _ALWAYS_SKIPPED:
                yield from self._entry(entry, (*parents, identity))

    def _entry(self, path: Path, parents: tuple[tuple[int, int], ...]) -> Iterator[Path]:
        try:
            mode = path.stat().st_mode
        except OSError as error:
            self._reject("file", path, f"cannot be reached: {error.strerror}")
            return
        if stat.S_ISDIR(mode):
            yield from self.files(path, parents)
        elif stat.S_ISREG(mode):
            yield path
        else:
            self._reject("file", path, "neither a file nor a folder (a pipe, socket or device)")

    def _reject(self, what: str, path: Path, why: str) -> None:
        self.rejected.append(Rejection(what, _relative(path, self.root), why))


def _relative(path: Path, root: Path) -> str:
    return printable(path.relative_to(root).as_posix())


def _may_be_audio(path: Path) -> bool:
    """By name, or by its first bytes where the name says otherwise."""
    if path.suffix.lower().lstrip(".") not in _NOT_AUDIO:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    wav = head[:4] == b"RIFF" and head[8:12] == b"WAVE"
    return wav or head[4:8] == b"ftyp" or head.startswith(_MAGIC)


def _song(path: Path, relative: str, named: list[MetadataRow]) -> tuple[SongFile, list[Rejection]]:
    sidecars = read_sidecars(path)
    folder = PurePosixPath(relative).parent
    complaints = [Rejection("sidecar", str(folder / name), why) for name, why in sidecars.refused]
    captions = [*sidecars.captions, *(row.caption for row in named if row.caption)]
    fields: dict[str, str] = {}
    for row in named:
        fields |= row.fields
    return SongFile(path, relative, list(dict.fromkeys(captions)), fields | sidecars.fields), complaints


def _all_metadata(root: Path, files: list[Path]) -> tuple[list[MetadataRow], list[Rejection]]:
    rows: list[MetadataRow] = []
    refused: list[Rejection] = []
    for file in files:
        where = _relative(file, root)
        read, complaints = read_metadata(file, PurePosixPath(where).parent)
        rows += read
        refused += [Rejection("metadata", f"{where}:{line}" if line else where, why) for line, why in complaints]
    return rows, refused


def _rows_without_song(rows: list[MetadataRow], root: Path, songs: set[str]) -> list[Rejection]:
    lost = [row for row in rows if row.song not in songs]
    return [Rejection("metadata", row.where, f"{row.song}: {_why_no_song(root / row.song)}") for row in lost]


def _why_no_song(path: Path) -> str:
    return "not audio" if os.path.exists(path) else "no such file"  # noqa: PTH110 Path.exists raises on a long name
