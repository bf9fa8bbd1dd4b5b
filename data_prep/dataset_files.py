"""The prepared dataset's files: made beside, then put in place so that no reader ever sees half of one.

`prep.yaml` says that a dataset is whole: it goes first when a dataset is replaced and comes last.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from configs.errors import UserError
from data_prep.cache import Cache
from data_prep.caption_edits import EDITS_FILE, Edits
from data_prep.describe import SongAccount
from data_prep.prepared import (
    CLIPS_FILE,
    CONDITIONS_FOLDER,
    INFO_FILE,
    REJECTED_FILE,
    TEXT_FOLDER,
    TOKENS_FOLDER,
    ClipRow,
    PreparedDataset,
)
from data_prep.safe_write import GOES_ON, flush_file, remove, storing
from data_prep.scan import Rejection

REPORT_FILE, SONGS_FILE = "report.html", "songs.jsonl"
_FILES = (CLIPS_FILE, REJECTED_FILE, SONGS_FILE, EDITS_FILE, REPORT_FILE, INFO_FILE)
_PARTS = (TOKENS_FOLDER, TEXT_FOLDER, CONDITIONS_FOLDER, *_FILES)


@dataclass(frozen=True)
class NewDataset:
    """All that a dataset consists of. `info` is prep.yaml, without its `content`; `texts` are files by their name."""

    rows: Sequence[ClipRow]
    rejected: Sequence[Rejection]
    codes: Mapping[str, Int[np.ndarray, "K _"]]
    texts: Mapping[str, Path]
    info: dict[str, Any]
    songs: Sequence[SongAccount] = ()
    conditions: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    """By kind, values [n, width] of the clips that have any, by id."""
    edits: Edits = Edits()  # noqa: RUF009 (frozen)
    """Captions that a person edited, for the next run."""

    def content(self) -> str:
        """A hash over everything that the dataset says, but not over the versions of the programs that made it."""
        digest = hashlib.sha256()
        stable = {name: value for name, value in self.info.items() if name != "versions"}
        lines = (_lines(self.rows), _lines(self.rejected), _lines(self.songs), self.edits.lines())
        for text in (json.dumps(stable, sort_keys=True), *lines, *sorted(self.texts)):
            digest.update(text.encode())
        for row in self.rows:
            digest.update(self.codes[row.id].tobytes())
        for kind, values in sorted(self.conditions.items()):
            digest.update(kind.encode())
            for clip_id in sorted(values):
                digest.update(clip_id.encode() + values[clip_id].tobytes())
        return digest.hexdigest()[:32]


def is_current(out: Path, content: str) -> bool:
    """Whether a whole dataset of this content lies there."""
    try:
        found = PreparedDataset(out)
    except UserError:
        return False
    return found.info.get("content") == content and (out / REPORT_FILE).exists()


def put_in_place(out: Path, cache: Cache, new: NewDataset, content: str, report: Callable[[], str]) -> None:
    """Write the dataset beside and replace what was there; `report` makes the page.

    Raises:
        UserError: the disk is full or refuses.
    """
    beside = cache.folder / f"dataset.{os.getpid()}.part"
    try:
        with storing(out, again=GOES_ON):
            _write(beside, out, cache, new, content, report)
    finally:
        with suppress(OSError):
            remove(beside)


def _write(beside: Path, out: Path, cache: Cache, new: NewDataset, content: str, report: Callable[[], str]) -> None:
    from data_prep.tokens import write_tokens, write_values

    remove(beside)
    beside.mkdir()
    write_tokens(beside / TOKENS_FOLDER, [r.id for r in new.rows], [new.codes[r.id] for r in new.rows], content)
    for kind, values in new.conditions.items():
        if not values:
            continue  # prep.yaml says that no clip has it
        ordered = {row.id: values[row.id] for row in new.rows if row.id in values}
        dtype = next((value.dtype for value in values.values()), np.dtype(np.float32))
        write_values(beside / CONDITIONS_FOLDER / kind, ordered, dtype, content)
    (beside / TEXT_FOLDER).mkdir()
    for name, path in new.texts.items():
        _link(path, beside / TEXT_FOLDER / name)
    (beside / CLIPS_FILE).write_text(_lines(new.rows), "utf-8")
    (beside / REJECTED_FILE).write_text(_lines(new.rejected), "utf-8")
    (beside / SONGS_FILE).write_text(_lines(new.songs), "utf-8")
    if new.edits.captions:
        (beside / EDITS_FILE).write_text(new.edits.lines(), "utf-8")
    (beside / REPORT_FILE).write_text(report(), "utf-8")
    (beside / INFO_FILE).write_text(_yaml({**new.info, "content": content}), "utf-8")
    _flush(beside)
    _swap(beside, out, cache.folder / f"old.{os.getpid()}.part")


def _swap(beside: Path, out: Path, old: Path) -> None:
    (out / INFO_FILE).unlink(missing_ok=True)
    old.mkdir(exist_ok=True)
    for name in _PARTS:
        if (out / name).exists():
            (out / name).rename(old / name)
        if (beside / name).exists():
            (beside / name).rename(out / name)
    remove(old)


def _link(source: Path, target: Path) -> None:
    """A second name for a file of the cache, or a copy where the file system has no such thing."""
    import shutil

    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _flush(folder: Path) -> None:
    """Have the big files on the disk before their names are: a power cut must not leave names without content."""
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name != TEXT_FOLDER:
            flush_file(path)


def _lines(values: Sequence[Any]) -> str:
    return "".join(json.dumps(asdict(value), ensure_ascii=True) + "\n" for value in values)


def _yaml(info: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(info, sort_keys=False, allow_unicode=False)
