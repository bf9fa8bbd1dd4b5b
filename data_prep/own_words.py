"""The owner's words → the songs they are about: sidecars first, then rows of metadata files.

Every caption and field that is found goes to a song, is a line among the refused, or has a reason in the song's
`read`. How a file is read is for `sidecar` and `metadata` to say.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from configs.normal_text import folded, normal_text
from data_prep.metadata import MetadataFile, MetadataRow, inside, read_metadata
from data_prep.names import printable
from data_prep.sidecar import Beside, read_sidecars
from data_prep.song_file import Rejection, SongFile
from data_prep.song_index import SongIndex, base_name
from data_prep.song_words import Reading, SongWords

_SHOWN_CHARS = 300


@dataclass(frozen=True)
class MetadataUse:
    """What became of one metadata file: its rows, those that name a song, and the captions that these hold."""

    where: str
    rows: int
    named: int
    captions: int
    columns: list[str]
    no_song: str = ""
    """Why the first of the other rows names no song."""
    problems: int = 0
    """What else could not be used."""
    problem: str = ""
    """The first of these."""


@dataclass
class OwnWords:
    """Songs with their owner's words; what could not be used; files that are no song's and no metadata."""

    songs: list[SongFile]
    refused: list[Rejection] = field(default_factory=list)
    metadata: list[MetadataUse] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)


def read_own_words(root: Path, songs: Sequence[SongFile], tables: Sequence[Path], around: Sequence[Path]) -> OwnWords:
    """Read the metadata files `tables` and what else lies around the songs of the folder `root`."""
    own = OwnWords([])
    index = SongIndex(song.relative for song in songs)
    said: dict[str, list[tuple[str, SongWords]]] = {song.relative: [] for song in songs}
    beside, used = Beside(around, [song.path for song in songs]), set()
    for song in songs:
        folder = PurePosixPath(song.relative).parent
        found = read_sidecars(song.path, beside)
        used.update(found.paths)
        said[song.relative] += [((folder / name).as_posix(), words) for name, words in found.words]
        own.refused += [Rejection("sidecar", str(folder / name), why) for name, why in found.refused]
    for path in tables:
        _read_table(path, root, index, said, own)
    own.songs = [_with_words(song, said[song.relative]) for song in songs]
    own.unread = [path for path in around if path not in used]
    own.refused = list(dict.fromkeys(own.refused))
    return own


def _read_table(
    path: Path, root: Path, index: SongIndex, said: dict[str, list[tuple[str, SongWords]]], own: OwnWords
) -> None:
    below = PurePosixPath(printable(path.parent.relative_to(root).as_posix()))
    table = read_metadata(path, below, lambda name: index.has(name, below))
    problems = [(f"{table.where}:{line}" if line else table.where, why) for line, why in table.refused]
    bare_names = Counter(base_name(row.names[0][1]) for row in table.rows)
    no_song: list[tuple[str, str]] = []
    captions = 0
    for row in table.rows:
        try:
            song, name = _song_of(row, table, path.parent, root, index, bare_names)
        except LookupError as error:
            no_song.append((row.where, str(error.args[0])))
            continue
        words = row.words(name)
        words.taken_for_name = None if _is_name_of(name[1], song, below) else name
        captions += len(words.captions)
        said[song].append((row.where, words))
        problems += [(row.where, problem) for problem in words.problems]
    own.refused += [Rejection("metadata", where, why) for where, why in problems + no_song]
    own.metadata.append(
        MetadataUse(
            table.where,
            rows=len(table.rows),
            named=len(table.rows) - len(no_song),
            captions=captions,
            columns=table.columns,
            no_song=no_song[0][1] if no_song else "",
            problems=len(problems),
            problem=problems[0][1] if problems else "",
        )
    )


def _song_of(
    row: MetadataRow, table: MetadataFile, folder: Path, root: Path, index: SongIndex, bare_names: Counter[str]
) -> tuple[str, tuple[str, str]]:
    """The song a row means, and which of its columns named it.

    Raises:
        LookupError: it means none, or more than one.
    """
    why = ""
    for name in row.names:
        try:
            place = inside(name[1], table.below, folder)
            found = index.find(place) if not os.path.isfile(root / place) or index.is_song(place) else []  # noqa: PTH113
            why = why or f"{place}: {_why_no_song(root / place)}"
        except ValueError as error:
            found, why = [], why or str(error)
        if len(found) > 1:
            raise LookupError(f"{name[1][:200]!r} may be any of {', '.join(found[:3])}")
        if found:
            return found[0], name
    if bare_names[base_name(row.names[0][1])] == 1 and (alone := index.below(table.below, row.names[0][1])):
        return alone, row.names[0]
    raise LookupError(why)


def _is_name_of(name: str, song: str, below: PurePosixPath) -> bool:
    return folded((below / name.replace("\\", "/")).as_posix()) == folded(song)


def _why_no_song(path: Path) -> str:
    return "not audio" if os.path.exists(path) else "no such file"  # noqa: PTH110 Path.exists raises on a long name


def _with_words(song: SongFile, said: Iterable[tuple[str, SongWords]]) -> SongFile:
    captions: dict[str, None] = {}
    fields: dict[str, str] = {}
    read: list[Reading] = []
    for where, words in said:
        if words.taken_for_name:
            name, text = words.taken_for_name
            read.append(Reading(where, name, normal_text(text)[:_SHOWN_CHARS], "name of the song"))
        for name, text in words.captions:
            again = text in captions
            captions[text] = None
            read.append(
                Reading(where, name, text[:_SHOWN_CHARS], "not used: the same words again" if again else "caption")
            )
        for name, text in words.facts:
            use = f"not used: {name} was stated before" if fields.get(name, text) != text else ""
            fields.setdefault(name, text)
            read.append(Reading(where, name, text[:_SHOWN_CHARS], use))
        read += [Reading(where, name, text, f"not used: {why}") for name, text, why in words.unused]
    return replace(song, own_captions=list(captions), fields=fields, read=read)
