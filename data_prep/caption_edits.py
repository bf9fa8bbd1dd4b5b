"""A table of captions that a person changes in any editor: written from a dataset, read back by `prep`.

CSV (a line per caption: clip, source, start_sec, listeners, caption) or JSONL (a line per clip, `captions` a list);
only the clip's id and the captions are read back, whatever the order of columns and lines. Lines may be added, changed
and deleted. A clip that is not in the table, or has no caption left in it, gets the captions that `prep` makes.

What was read of the table stays in the dataset (`EDITS_FILE`), and the next run uses it again: a person's words are not
lost because the same command was given without the table.

Spreadsheets change what they save: separators (comma, semicolon, tab), encoding (UTF-8 or UTF-16), and they would run
a cell that begins like a formula. Such a cell is written with an apostrophe before it, which is taken away again.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from configs.errors import UserError
from data_prep.captions import with_trigger
from data_prep.prepared import ClipRow
from data_prep.safe_write import written_beside
from data_prep.scan import Rejection
from data_prep.sidecar import decode_text
from data_prep.song_words import caption_text

EDITS_FILE = "caption_edits.jsonl"
MAX_FILE_BYTES = 64 * 2**20
MAX_CAPTIONS_PER_CLIP = 32
_COLUMNS = ("clip", "source", "start_sec", "listeners", "caption")
_FORMULA = ("=", "+", "-", "@", "\t")


@dataclass(frozen=True)
class Edits:
    """What a table says: captions by clip id, and where each clip was first named."""

    captions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    kept: bool = False
    """They are the last run's, which nobody gave again."""

    def lines(self) -> str:
        """JSONL that `kept_edits` reads back."""
        lines = [{"clip": clip, "captions": list(texts)} for clip, texts in self.captions.items()]
        return "".join(json.dumps(line) + "\n" for line in lines)

    def unused(self, clip_ids: Iterable[str]) -> list[Rejection]:
        """The lines that name no clip there is.

        Raises:
            UserError: that is all of them, and they were given anew: the table belongs to another dataset.
        """
        there = set(clip_ids)
        strange = [clip for clip in self.places if clip not in there]
        if strange and len(strange) == len(self.places) and not self.kept:
            raise UserError(
                "The table of captions names no clip of these songs.",
                where=self.places[strange[0]],
                fix="Clips are other ones when songs, stems or lengths change: write it anew with "
                "`woodshed captions DATA --edit FILE`, or leave captions.edits out.",
            )
        why = "no clip has this id now: its song, stems or place changed"
        return [Rejection("caption", self.places[clip], why) for clip in strange]


def read_edits(path: Path | None) -> Edits:
    """Read a table back; None is no table.

    Raises:
        UserError: it cannot be read, with the line.
    """
    if path is None:
        return Edits()
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"larger than {MAX_FILE_BYTES // 2**20} MB")
        text = decode_text(data)
        lines = _jsonl(text) if path.suffix.lower() in (".jsonl", ".json") else _csv(text)
        return _collected(path, lines)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"The table of captions cannot be read: {getattr(error, 'strerror', None) or error}.",
            where=str(path),
            fix="It needs the columns clip and caption, as `woodshed captions DATA --edit FILE.csv` writes them.",
        ) from error


def kept_edits(dataset: Path) -> Edits:
    """The captions that a person edited for the dataset that is there; none where there is no such dataset.

    Raises:
        UserError: its file is damaged.
    """
    path = dataset / EDITS_FILE
    return replace(read_edits(path), kept=True) if path.is_file() else Edits()


def write_edits(path: Path, rows: Sequence[ClipRow]) -> int:
    """Write the captions of a dataset as a table to change; how many captions it holds.

    Raises:
        UserError: the file is there already, or its ending is none of .csv and .jsonl.
    """
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise UserError("A table of captions is .csv or .jsonl.", where=str(path), fix=f"Name it {path.stem}.csv.")
    if path.exists():
        raise UserError("This file is there already.", where=str(path), fix="Give another name, or delete it.")
    text = _as_csv(rows) if path.suffix.lower() == ".csv" else _as_jsonl(rows)
    with written_beside(path) as part:
        part.write_text(text, "utf-8", newline="")
    return sum(len(row.captions) for row in rows)


def final_captions(written: Sequence[str], trigger: str) -> list[str]:
    """A person's captions of one clip as they will be learnt: each with the trigger, none twice."""
    texts = (with_trigger(text, trigger) for text in written)
    return list({text.casefold(): text for text in texts}.values())


def listener_words(row: ClipRow) -> str:
    """What listeners said of a clip, on one line."""
    said = [
        ", ".join(filter(None, [*answer.get("words", []), answer.get("text", "")])) for answer in row.listeners.values()
    ]
    return "; ".join(filter(None, said))


def _as_csv(rows: Sequence[ClipRow]) -> str:
    buffer = io.StringIO()
    buffer.write("\ufeff")  # spreadsheets take a file for UTF-8 by this mark alone
    writer = csv.writer(buffer)
    writer.writerow(_COLUMNS)
    for row in rows:
        for caption in row.captions:
            cells = (row.id, row.source, f"{row.start_sec:.2f}", listener_words(row), caption)
            writer.writerow([_harmless(cell) for cell in cells])
    return buffer.getvalue()


def _as_jsonl(rows: Sequence[ClipRow]) -> str:
    lines = [
        {
            "clip": r.id,
            "source": r.source,
            "start_sec": r.start_sec,
            "listeners": listener_words(r),
            "captions": r.captions,
        }
        for r in rows
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _csv(text: str) -> Iterable[tuple[int, str, list[Any]]]:
    """(line, clip, captions) of each line of a CSV, whichever separator it was saved with."""
    header = text.split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    names = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    if "clip" not in names or "caption" not in names:
        raise ValueError(f"its first line names the columns {', '.join(filter(None, names)) or '(none)'}")
    for row in reader:
        clip, caption = (row[names[name]] or "" for name in ("clip", "caption"))
        if clip.strip():
            plain = caption[1:] if caption.startswith("'") and caption[1:].startswith(_FORMULA) else caption
            yield reader.line_num, clip.strip(), [plain]
        elif caption.strip():
            raise ValueError(f"line {reader.line_num} has a caption and names no clip")


def _jsonl(text: str) -> Iterable[tuple[int, str, list[Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            clip, captions = value["clip"], value["captions"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f'line {number} is not {{"clip": …, "captions": […]}}') from error
        if not isinstance(clip, str) or not isinstance(captions, list):
            raise ValueError(f"line {number}: clip must be text and captions a list")
        yield number, clip, captions


def _collected(path: Path, lines: Iterable[tuple[int, str, list[Any]]]) -> Edits:
    captions: dict[str, dict[str, None]] = {}
    places: dict[str, str] = {}
    for number, clip, said in lines:
        places.setdefault(clip, f"{path.name}, line {number}: {clip[:40]}")
        for caption in said:
            try:
                text = caption_text(caption)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
            if text:
                captions.setdefault(clip, {})[text] = None
        if len(captions.get(clip, ())) > MAX_CAPTIONS_PER_CLIP:
            raise ValueError(f"line {number}: more than {MAX_CAPTIONS_PER_CLIP} captions of clip {clip[:40]}")
    return Edits({clip: list(texts) for clip, texts in captions.items()}, places)
