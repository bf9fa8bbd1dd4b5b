"""How everything downstream reads a prepared dataset. Nothing here can make one."""

import hashlib
import json
import re
from dataclasses import dataclass, field, fields
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Num

from configs.errors import UserError
from data_prep.tokens import VALUES, TokenReader

FORMAT = "woodshed-dataset"
FORMAT_VERSION = 1
INFO_FILE, CLIPS_FILE, REJECTED_FILE, TOKENS_FOLDER, TEXT_FOLDER, CONDITIONS_FOLDER = (
    "prep.yaml",
    "clips.jsonl",
    "rejected.jsonl",
    "tokens",
    "text_states",
    "conditions",
)
_KIND = re.compile(r"\w[\w.-]*")
"""Names of conditions are names of folders too."""
_STATES_IN_MEMORY = 512
_STATES_MAPPED = 30_000


@dataclass(frozen=True)
class ClipRow:
    """A line of clips.jsonl. `source` is the file below the song folder, `n_frames` the clip's length T."""

    id: str
    source: str
    source_sha256: str
    start_sec: float
    duration_sec: float
    n_frames: int
    stems: str
    split: str
    captions: list[str]
    loudness_lufs: float | None = None
    tempo_bpm: float | None = None
    key: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    listeners: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each listener said, by its name: words, text, what the filter removed."""


def text_state_name(caption: str, encoder_fingerprint: str) -> str:
    """The file of a caption's text states, without its suffix."""
    return hashlib.sha256(f"{encoder_fingerprint}\n{caption}".encode()).hexdigest()[:32]


class PreparedDataset:
    """A folder written by `woodshed prep`, checked on opening.

    Tokens and text states are mapped into memory then, and stay readable when `prep` replaces the dataset meanwhile.
    They are read from disk when they are asked for, and the system may drop them again; what is held besides is a
    kilobyte or two per caption, and the last 512 states asked for. Of more than 30,000 captions (Linux allows a process
    65,530 mapped files), the others are read by name, and gone with a dataset that is replaced.

    Raises:
        UserError: it is no such folder, incomplete, or of another version.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.info: dict[str, Any] = read_info(self.folder)
        try:
            self._rows = [_row(line) for line in (self.folder / CLIPS_FILE).read_text("utf-8").splitlines()]
            self._tokens = TokenReader(self.folder / TOKENS_FOLDER)
        except (OSError, ValueError, TypeError) as error:
            raise _damaged(self.folder, str(error)) from error
        self._conditions = {kind: self._open_condition(kind) for kind in self._kinds_made()}
        self._check()
        self._mapped = self._map_states()
        self._state = lru_cache(maxsize=_STATES_IN_MEMORY)(self._read_state)

    def clips(self, split: str | None = None) -> list[ClipRow]:
        """The clips of a split (`train`, `validation`), or all, in the order of the file."""
        return [row for row in self._rows if split is None or row.split == split]

    @property
    def trigger(self) -> str:
        """The words that every caption has, or nothing."""
        return self.info["settings"]["captions"]["trigger"]

    def learned_content(self) -> str:
        """A hash over all that training can learn from: tokens, captions, the split, and what made tokens and states.

        Where the dataset lies, what the base is called, and what was left out are no part of it.
        """
        digest = hashlib.sha256()
        made_by = [self.info[part]["fingerprint"] for part in ("codec", "text_encoder")]
        digest.update(json.dumps([*made_by, self.trigger]).encode())
        for row in self._rows:
            digest.update(json.dumps([row.id, row.split, row.n_frames, row.captions]).encode())
            digest.update(self.codes(row.id).tobytes())
        for kind in sorted(self._conditions):
            digest.update(kind.encode())
            for row in self._rows:
                values = self.condition(kind, row.id)
                digest.update(b"none" if values is None else values.tobytes())
        return digest.hexdigest()[:32]

    def codes(self, clip_id: str) -> Int[np.ndarray, "K T"]:
        """Tokens of a clip: a read-only view of the memory-mapped file."""
        return self._tokens[clip_id]

    def text_state(self, caption: str) -> Num[np.ndarray, "L D_text"]:
        """Text states of one of the dataset's captions, with the trigger or without it, or of the trigger; read-only.

        Raises:
            UserError: the file is missing or damaged.
        """
        return self._state(caption)

    def has_text_state(self, caption: str) -> bool:
        """Whether the dataset holds the text states of these words. Older ones lack those without the trigger."""
        return self._state_path(caption).is_file()

    def condition(self, kind: str, clip_id: str) -> np.ndarray | None:
        """Values of another kind of condition than text, [n, width], for a whole clip; None where it has none."""
        reader = self._conditions.get(kind)
        return reader[clip_id] if reader is not None and clip_id in reader else None

    def _read_state(self, caption: str) -> Num[np.ndarray, "L D_text"]:
        from safetensors import SafetensorError

        file = self._mapped.get(caption) or self._open_state(caption)
        try:
            states = file.get_tensor("states")
        except SafetensorError as error:
            raise self._damaged_state(caption, error) from error
        states.flags.writeable = False
        return states

    def _kinds_made(self) -> list[str]:
        try:
            made = [kind for kind, said in self.info.get("conditions", {}).items() if said["clips"]]
            if all(_KIND.fullmatch(kind) for kind in made):
                return made
        except (AttributeError, LookupError, TypeError) as error:
            raise _damaged(self.folder, f"{INFO_FILE}: conditions: {error!r}") from error
        raise _damaged(self.folder, f"{INFO_FILE}: conditions: {made} are not all names")

    def _open_condition(self, kind: str) -> TokenReader:
        try:
            return TokenReader(self.folder / CONDITIONS_FOLDER / kind, VALUES)
        except (OSError, ValueError) as error:
            raise _damaged(self.folder, f"{CONDITIONS_FOLDER}/{kind}: {error}") from error

    def _map_states(self) -> dict[str, Any]:
        """Open files by caption. They keep no file descriptor, only the mapped memory."""
        captions = dict.fromkeys(caption for row in self._rows for caption in row.captions)
        return {caption: self._open_state(caption) for caption in islice(captions, _STATES_MAPPED)}

    def _open_state(self, caption: str) -> Any:
        from safetensors import SafetensorError, safe_open

        try:
            return safe_open(self._state_path(caption), framework="np")
        except (OSError, SafetensorError) as error:
            raise self._damaged_state(caption, error) from error

    def _damaged_state(self, caption: str, error: Exception) -> UserError:
        return _damaged(self.folder, f"{self._state_path(caption).name} for {caption!r}: {error}")

    def _state_path(self, caption: str) -> Path:
        name = text_state_name(caption, self.info["text_encoder"]["fingerprint"])
        return self.folder / TEXT_FOLDER / f"{name}.safetensors"

    def _check(self) -> None:
        """Each clip has tokens of the right shape, each caption its states: all that training will ask for is there."""
        K = self.info["codec"]["n_codebooks"]
        for row in self._rows:
            if row.id not in self._tokens:
                raise _damaged(self.folder, f"clip {row.id} of {row.source} has no tokens")
            if self._tokens[row.id].shape != (K, row.n_frames):
                got = self._tokens[row.id].shape
                raise _damaged(self.folder, f"clip {row.id}: tokens are {got}, expected {(K, row.n_frames)}")
        present = {path.name for path in (self.folder / TEXT_FOLDER).glob("*.safetensors")}
        for caption in {caption for row in self._rows for caption in row.captions}:
            if self._state_path(caption).name not in present:
                raise _damaged(self.folder, f"no text states for {caption!r}")


def read_info(folder: Path) -> dict[str, Any]:
    """What prep.yaml says: the settings, and what made tokens and states.

    Raises:
        UserError: it is no finished dataset, damaged, or of another version.
    """
    import yaml

    path = folder / INFO_FILE
    if not path.exists():
        begun = (folder / ".cache").is_dir()
        raise UserError(
            "This dataset is not finished." if begun else "This is no prepared dataset: it has no prep.yaml.",
            where=str(folder),
            fix=f"Run `woodshed prep SONGS {folder}`" + (" again: it goes on where it stopped." if begun else "."),
        )
    try:
        info = yaml.safe_load(path.read_text("utf-8"))
        found = (info["format"], info["format_version"])
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{INFO_FILE}: {error}") from error
    if found != (FORMAT, FORMAT_VERSION):
        raise UserError(
            f"This dataset has the format {found[0]} {found[1]}; this version of Woodshed reads {FORMAT_VERSION}.",
            where=str(folder),
            fix="Run `woodshed prep` on its songs again.",
        )
    return info


def _row(line: str) -> ClipRow:
    known = {f.name for f in fields(ClipRow)}
    return ClipRow(**{name: value for name, value in json.loads(line).items() if name in known})


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(
        "The prepared dataset is incomplete or damaged.",
        where=f"{folder}: {what}",
        fix="Run the same `woodshed prep` again: it makes what is missing.",
    )
