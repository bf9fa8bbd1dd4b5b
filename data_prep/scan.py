"""Find the songs in a folder, and what their owner says of them. It reads the folder and never writes to it.

Every regular file is taken for a song except these, which are passed over and counted by kind: hidden files and folders
(their name begins with a dot, which takes in macOS's `._song.mp3`), `__MACOSX`, and files of kinds that lie around
music (text, pictures, playlists, scores: see `_NOT_AUDIO`) unless their first bytes say audio. What is no audio after
all is found out when it is decoded, and rejected there with the reason. Links are followed; a folder is read once,
however many links lead to it. Which song a file of text belongs to is for `own_words` to say.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from configs.errors import UserError
from data_prep.metadata import is_metadata
from data_prep.names import printable
from data_prep.own_words import MetadataUse, read_own_words
from data_prep.song_file import Rejection, SongFile

_KINDS = (
    "txt caption prompt json jsonl csv tsv md rst rtf pdf doc docx odt html htm xml yaml yml toml ini cfg log url nfo "
    "lnk db "
    "jpg jpeg png gif webp bmp tif tiff svg ico psd heic avif lrc cue m3u m3u8 pls asx xspf sfv md5 sha256 "
    "mid midi kar sf2 mscz musicxml gp3 gp4 gp5 gpx ptb asd reapeaks rpp als flp zip gz bz2 xz 7z rar tar py"
)
_NOT_AUDIO = frozenset(_KINDS.split())
_MAGIC = (b"fLaC", b"OggS", b"ID3", b"FORM", b"caff", b"wvpk", b"MAC ", b"\x1aE\xdf\xa3", b"0&\xb2u", b"RF64", b"BW64")
_TABLES = (".csv", ".tsv", ".jsonl")
_ALWAYS_SKIPPED = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information"})


@dataclass(frozen=True)
class ScanResult:
    """All in an order that depends on names alone."""

    songs: list[SongFile]
    rejected: list[Rejection]
    passed_over: dict[str, int] = field(default_factory=dict)
    """Files and folders that were not looked into, by kind: `hidden`, `txt`, …"""
    metadata: list[MetadataUse] = field(default_factory=list)


def scan(folder: Path) -> ScanResult:
    """List the songs of a folder and all below it.

    Raises:
        UserError: the folder does not exist, is a file, or cannot be read.
    """
    _check_folder(folder)
    walk = _Walk(folder)
    found = list(walk.files(folder, ()))
    audio = [path for path in found if _may_be_audio(path)]
    songs = [SongFile(path, _relative(path, folder)) for path in audio]
    around = sorted(set(found) - set(audio))
    tables = [path for path in around if is_metadata(path.name) and not _is_sidecar_of(path, audio)]
    own = read_own_words(folder, songs, tables, [path for path in around if path not in set(tables)])
    strange = [path for path in own.unread if path.suffix.lower() in _TABLES]
    rejected = walk.rejected + own.refused + [_not_read(path, folder) for path in strange]
    passed = walk.passed_over + Counter(_kind(path) for path in own.unread if path not in set(strange))
    return ScanResult(
        sorted(own.songs, key=lambda s: s.relative),
        sorted(rejected, key=lambda r: (r.where, r.why)),
        dict(sorted(passed.items(), key=lambda kind: (-kind[1], kind[0]))),
        own.metadata,
    )


def _is_sidecar_of(path: Path, songs: list[Path]) -> bool:
    """Whether `metadata.json` belongs to a song that is called metadata."""
    return path.suffix.lower() == ".json" and any(
        song.parent == path.parent and song.stem.lower() == path.stem.lower() for song in songs
    )


def _not_read(path: Path, root: Path) -> Rejection:
    why = "not read: tables are read when they are called metadata, captions or prompts (metadata.csv)"
    return Rejection("table", _relative(path, root), why)


def _kind(path: Path) -> str:
    return printable(path.suffix.lower().lstrip(".")) or "without ending"


def by_kind(passed_over: Mapping[str, int]) -> str:
    """What was passed over, in words: "12 hidden, 3 jpg"."""
    return ", ".join(f"{count:,} {kind}" for kind, count in passed_over.items())


def _check_folder(folder: Path) -> None:
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
        self.passed_over: Counter[str] = Counter()
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
            if entry.name.startswith(".") or entry.name in _ALWAYS_SKIPPED:
                self.passed_over["hidden" if entry.name.startswith(".") else entry.name] += 1
            else:
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
