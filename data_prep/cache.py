"""Finished work by content: an entry is named by the hash of all that its value depends on.

So a changed setting or file simply has another name, and nothing is ever out of date. An entry is written beside and
renamed, and carries a checksum: one that a crash or a bad disk damaged reads as not there. Safe to delete at any time
between runs; entries that no setting reaches any more stay until then.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep.safe_write import GOES_ON, remove, storing, write_text, written_beside

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
        with storing(folder, again=GOES_ON):
            folder.mkdir(parents=True, exist_ok=True)

    def claim(self) -> None:
        """Tag the folder, where that is not done, and remove what killed runs left half-written.

        Only while holding the folder's lock.

        Raises:
            UserError: the disk is full or refuses.
        """
        with storing(self.folder, again=GOES_ON):
            for path in self.folder.glob("**/*.part"):
                remove(path)
        if not Cache.is_one(self.folder):
            write_text(self.folder / "CACHEDIR.TAG", _TAG, again=GOES_ON)

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
        with written_beside(self.path(stage, key, ".json"), again=GOES_ON) as part:
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

        with written_beside(self.path(stage, key, ".safetensors"), again=GOES_ON) as part:
            save_file(dict(arrays), part, metadata={"sha256": _arrays_checksum(arrays)})


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _arrays_checksum(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()
