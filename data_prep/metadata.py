"""`metadata.csv`, `.tsv`, `.jsonl` and `.json`, as in Hugging Face's AudioFolder and its kin: one row per file.

Also read under the names `captions` and `prompts`, in any case. Which columns are captions is for `column_names` to
say; several in one row are all kept, and what is neither file nor caption is a field. A row may only name files below
the folder that its metadata file lies in. Songs that no row names are used all the same.
"""

import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from configs.normal_text import folded
from data_prep.column_names import FILE_COLUMNS, column_name
from data_prep.metadata_table import is_audio_name, read_table
from data_prep.names import printable
from data_prep.sidecar import decode_text, load_json
from data_prep.song_words import SongWords, song_words

MAX_FILE_BYTES = 64 * 1024 * 1024
_METADATA = re.compile(r"(?:metadata|captions?|prompts?)\.(?:csv|tsv|jsonl|json)")


@dataclass(frozen=True)
class MetadataRow:
    """What one row says. `where` names file and line."""

    where: str
    names: list[tuple[str, str]]
    """(column, value) of each column that may name the song, the surest first."""
    others: list[tuple[str, Any]]
    """The other columns."""

    def words(self, name: tuple[str, str]) -> SongWords:
        """Captions and facts, when `name` is the one that names the song: the other names are facts."""
        rest = list(self.names)
        rest.remove(name)
        return song_words([*self.others, *rest])


@dataclass
class MetadataFile:
    """One metadata file, its columns as they are called, and (line, reason) for what cannot be used; line 0 is the
    whole file.
    """

    where: str
    below: PurePosixPath
    rows: list[MetadataRow] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)


def is_metadata(name: str) -> bool:
    """Whether a file of this name is read as a metadata file."""
    return _METADATA.fullmatch(folded(printable(name))) is not None


def read_metadata(path: Path, below: PurePosixPath, is_song: Callable[[str], bool] = is_audio_name) -> MetadataFile:
    """Read a metadata file in the folder `below` (relative to the song folder). `is_song` tells a song's name."""
    found = MetadataFile((below / printable(path.name)).as_posix(), below)
    kind = path.suffix.lower()
    try:
        text = _bounded_text(path)
        if kind in (".csv", ".tsv"):
            table = read_table(text, is_song)
            found.columns, found.refused = table.columns, table.problems
            rows: Iterator[tuple[int, Any]] = iter(table.rows)
        else:
            rows = _json_rows(text, found.refused, by_name=kind == ".json")
        for line, values in rows:
            try:
                found.rows.append(_row(values, f"{found.where}:{line}"))
            except ValueError as error:
                found.refused.append((line, str(error)))
    except (OSError, ValueError, RecursionError) as error:
        found.refused.append((0, getattr(error, "strerror", None) or _reason(error)))
    if not found.columns:
        names = (column for row in found.rows for column, _ in [*row.names, *row.others])
        found.columns = list(dict.fromkeys(names))[:64]
    return found


def inside(name: str, below: PurePosixPath, folder: Path) -> str:
    """The named file relative to the song folder; `folder` is the one `below` stands for, for whole paths.

    Raises:
        ValueError: it lies outside the metadata file's own folder.
    """
    place = posixpath.normpath(name.strip().removeprefix("file://").replace("\\", "/"))
    for root in dict.fromkeys((folder.absolute().as_posix(), folder.resolve().as_posix())):
        if place.startswith(root + "/"):
            place = place[len(root) + 1 :]
    absolute = place.startswith("/") or place[1:2] == ":"
    if absolute or place == ".." or place.startswith("../") or "\0" in place:
        raise ValueError(f"names a file outside its folder: {name[:200]!r}")
    return printable(posixpath.normpath((below / place).as_posix()))


def _bounded_text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES // 2**20} MB")
    return decode_text(data)


def _json_rows(text: str, refused: list[tuple[int, str]], *, by_name: bool) -> Iterator[tuple[int, Any]]:
    """Rows of one object per line, or of one JSON text: a list of objects, or, with
    `by_name`, an object of captions by file.
    """
    try:
        whole = load_json(text)
    except (ValueError, RecursionError):
        for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
            if line.strip():
                yield number, _json_line(line)
        return
    if by_name and isinstance(whole, dict) and not any(column_name(name) in FILE_COLUMNS for name in whole):
        whole = [_named(name, value) for name, value in whole.items()]
    if not isinstance(whole, list):
        whole = [whole]
    if not whole:
        refused.append((0, "it is empty"))
    yield from enumerate(whole, 1)


def _json_line(line: str) -> Any:
    try:
        return load_json(line)
    except (ValueError, RecursionError):
        return None


def _named(name: str, value: Any) -> dict[str, Any]:
    said = {k: v for k, v in value.items() if column_name(str(k)) != "file_name"} if isinstance(value, dict) else None
    return {"file_name": name, **(said if said is not None else {"text": value})}


def _row(values: Any, where: str) -> MetadataRow:
    if isinstance(values, dict):
        values = list(values.items())
    if not isinstance(values, list) or not all(isinstance(pair, tuple) for pair in values):
        raise ValueError("not a JSON object")
    names, others = [], []
    for column, value in values:
        known = column_name(str(column))
        text = value.get("path") if isinstance(value, dict) and known in FILE_COLUMNS else value
        if known in FILE_COLUMNS and isinstance(text, str) and text.strip():
            names.append((FILE_COLUMNS.index(known), (str(column), text)))
        else:
            others.append((str(column), value))
    if not names:
        raise ValueError("no file_name, nor another column that names the song")
    return MetadataRow(where, [name for _, name in sorted(names, key=lambda pair: pair[0])], others)


def _reason(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error)
