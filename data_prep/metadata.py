"""`metadata.jsonl` and `metadata.csv`, as in Hugging Face's AudioFolder: one row per file, `file_name` relative to
the metadata file.

`text` or `caption` is the owner's caption, other columns are fields. A row may only name files below the folder that
its metadata file lies in. Songs that no row names are used all the same.
"""

import csv
import io
import json
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep.names import printable
from data_prep.sidecar import caption_text, decode_text, field_texts

MAX_FILE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class MetadataRow:
    """What one row says. `song` is relative to the song folder, `where` names file and line."""

    song: str
    where: str
    caption: str = ""
    fields: dict[str, str] = field(default_factory=dict)


def read_metadata(path: Path, below: PurePosixPath) -> tuple[list[MetadataRow], list[tuple[int, str]]]:
    """Read a metadata file in the folder `below` (relative to the song folder).

    Returns its rows, and (line, reason) for each one that cannot be used; line 0 is the whole file.
    """
    rows: list[MetadataRow] = []
    refused: list[tuple[int, str]] = []
    try:
        text = _bounded_text(path)
        for line, values in (_json_rows if path.suffix == ".jsonl" else _csv_rows)(text):
            try:
                rows.append(_row(values, below, f"{(below / path.name).as_posix()}:{line}"))
            except ValueError as error:
                refused.append((line, str(error)))
    except (OSError, ValueError, csv.Error) as error:
        refused.append((0, getattr(error, "strerror", None) or str(error)))
    return rows, refused


def _bounded_text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES // 2**20} MB")
    return decode_text(data)


def _json_rows(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError):
            yield number, None


def _csv_rows(text: str) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    for values in reader:
        yield reader.line_num, {name: value for name, value in values.items() if name and value}


def _row(values: Any, below: PurePosixPath, where: str) -> MetadataRow:
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    name = values.pop("file_name", None)
    if not isinstance(name, str) or not name.strip():
        raise ValueError("no file_name")
    captions = [caption_text(values.pop(key)) for key in ("text", "caption") if values.get(key)]
    return MetadataRow(_inside(name, below), where, captions[0] if captions else "", field_texts(values))


def _inside(name: str, below: PurePosixPath) -> str:
    """The named file relative to the song folder.

    Raises:
        ValueError: it lies outside the metadata file's own folder.
    """
    place = posixpath.normpath(name.replace("\\", "/"))
    absolute = place.startswith("/") or place[1:2] == ":"
    if absolute or place == ".." or place.startswith("../") or "\0" in place:
        raise ValueError(f"names a file outside its folder: {name[:200]!r}")
    return printable(posixpath.normpath((below / place).as_posix()))
