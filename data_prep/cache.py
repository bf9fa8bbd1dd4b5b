"""Finished work by content: an entry is named by the hash of all that its value depends on.

So a changed setting or file simply has another name, and nothing is ever out of date. An entry is written beside and
renamed, and carries a checksum: one that a crash or a bad disk damaged reads as not there. Safe to delete at any time
between runs; entries that no setting reaches any more stay until then.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.errors import UserError

# The cache directory tagging standard (bford.info/cachedir): backup programs leave such folders out.
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Finished work of `woodshed prep`; safe to delete.\n"


def work_key(version: int, **inputs: Any) -> str:
    """The name of a piece of work: a hash of its code's version number and everything it depends on (JSON values)."""
    text = json.dumps([version, inputs], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Cache:
    """Entries of several stages in one folder: JSON values, tensors, and folders of files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def claim(self) -> None:
        """Tag the folder, where that is not done, and remove what killed runs left half-written.

        Only while holding the folder's lock.

        Raises:
            UserError: the disk is full or refuses.
        """
        for path in self.folder.glob("**/*.part"):
            remove(path)
        if Cache.is_one(self.folder):
            return
        with written_beside(self.folder / "CACHEDIR.TAG") as part, part.open("w") as file:
            file.write(_TAG)
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def is_one(folder: Path) -> bool:
        """Whether a folder was tagged by this class."""
        try:
            return (folder / "CACHEDIR.TAG").read_text() == _TAG
        except (OSError, ValueError):
            return False

    def path(self, stage: str, key: str, suffix: str) -> Path:
        """Where an entry lies, whether it exists or not."""
        return self.folder / stage / key[:2] / f"{key[2:]}{suffix}"

    def read_json(self, stage: str, key: str) -> Any | None:
        """The value of an entry, or None when it is not there or damaged."""
        try:
            checksum, _, body = self.path(stage, key, ".json").read_text().partition("\n")
        except (OSError, ValueError):
            return None
        return json.loads(body) if checksum == _checksum(body.encode()) else None

    def write_json(self, stage: str, key: str, value: Any) -> None:
        """Store a JSON value other than None."""
        body = json.dumps(value, ensure_ascii=True)
        with written_beside(self.path(stage, key, ".json")) as part:
            part.write_text(f"{_checksum(body.encode())}\n{body}")

    def read_tensors(self, stage: str, key: str) -> dict[str, Any] | None:
        """The numpy arrays of an entry, or None when it is not there or damaged."""
        from safetensors import SafetensorError, safe_open

        path = self.path(stage, key, ".safetensors")
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="np") as opened:
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
                stored = (opened.metadata() or {}).get("sha256")
        except (SafetensorError, OSError):
            return None
        return arrays if stored == _arrays_checksum(arrays) else None

    def write_tensors(self, stage: str, key: str, arrays: Mapping[str, Any]) -> None:
        """Store numpy arrays."""
        from safetensors.numpy import save_file

        with written_beside(self.path(stage, key, ".safetensors")) as part:
            save_file(dict(arrays), part, metadata={"sha256": _arrays_checksum(arrays)})


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes `path` in one step when the block ends well.

    Raises:
        UserError: the disk is full or refuses.
    """
    part = part_of(path)
    try:
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            part.replace(path)
    finally:
        remove(part)


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Around what only writes: a disk that is full or refuses is told in plain words.

    Raises:
        UserError: it is so.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            "Finished work could not be stored.",
            where=f"{path}: {error.strerror or error}",
            fix="Free some disk space or make the folder writable, then run the same command: it goes on from here.",
        ) from error


def part_of(path: Path) -> Path:
    """The name under which a file is written before it becomes `path`; another process has another."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    import shutil

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _arrays_checksum(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()
