"""The owner's words beside a song: `song.txt` is a caption, `song.json` holds fields, for `song.mp3` or any other kind.

`song.mp3.txt` and `song.mp3.json` work too and come first. In the JSON, `caption`, `captions` or `text` are captions;
the rest are fields: text, numbers, or lists of these. Sizes are bounded, so that lyrics or a book do not become a
caption.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.names import printable

MAX_FILE_BYTES = 64 * 1024
MAX_CAPTION_CHARS = 1000
MAX_FIELDS = 64
MAX_FIELD_CHARS = 500
CAPTION_FIELDS = ("caption", "captions", "text")


@dataclass
class Sidecars:
    """What lay beside one song; `refused` names files that could not be used, with the reason."""

    captions: list[str] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)


def read_sidecars(song: Path) -> Sidecars:
    """Read all sidecars of a song; a file that cannot be used is named in the result and does not stop the rest."""
    found = Sidecars()
    for stem in dict.fromkeys((song.name, song.stem)):
        for suffix in (".txt", ".json"):
            path = song.with_name(stem + suffix)
            if path == song or not os.path.isfile(path):  # noqa: PTH113 Path.is_file raises where a name is too long
                continue
            try:
                _read(path, found)
            except (OSError, ValueError, RecursionError) as error:
                found.refused.append((printable(path.name), _plain(error)))
    found.captions = list(dict.fromkeys(found.captions))
    return found


def caption_text(value: Any) -> str:
    """A caption on one line.

    Raises:
        ValueError: it is no text, or too long to be a caption.
    """
    if not isinstance(value, str):
        raise ValueError(f"a caption must be text, got {type(value).__name__}")
    text = " ".join(_whole(value).split())
    if len(text) > MAX_CAPTION_CHARS:
        raise ValueError(f"too long for a caption: {len(text)} characters, at most {MAX_CAPTION_CHARS}")
    return text


def field_texts(values: dict[Any, Any]) -> dict[str, str]:
    """Named facts as text: lower-case names, lists joined by commas; what is neither text nor number is left out.

    Raises:
        ValueError: there are too many, or one is too long or no text.
    """
    if len(values) > MAX_FIELDS:
        raise ValueError(f"{len(values)} fields, at most {MAX_FIELDS}")
    texts = {_whole(str(name)).strip().lower(): _field_text(value) for name, value in values.items()}
    for name, text in texts.items():
        if len(text) > MAX_FIELD_CHARS or len(name) > MAX_FIELD_CHARS:
            raise ValueError(f"field {name[:40]!r} is too long: at most {MAX_FIELD_CHARS} characters")
    return {name: text for name, text in texts.items() if name and text}


def decode_text(data: bytes) -> str:
    """UTF-8, or UTF-16 where its mark is there.

    Raises:
        ValueError: it is neither.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8 text: save it again as UTF-8") from error


def _read(path: Path, found: Sidecars) -> None:
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES // 1024} KB, too much for a sidecar")
    text = decode_text(data)
    if path.suffix == ".txt":
        found.captions += filter(None, [caption_text(text)])
        return
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError('expected an object such as {"genre": "blues"}')
    said = [value for name in CAPTION_FIELDS for value in _listed(values.pop(name, None))]
    captions = [caption_text(value) for value in said]
    found.fields = {**field_texts(values), **found.fields}
    found.captions += filter(None, captions)


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _field_text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(filter(None, map(_field_text, value)))
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    return " ".join(_whole(str(value)).split())


def _whole(text: str) -> str:
    """The text, unless it cannot be written: JSON can spell half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"no text: half a character in {text[:40]!r}") from error
    return text


def _plain(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg} in line {error.lineno}"
    if isinstance(error, RecursionError):
        return "not usable JSON: nested too deep"
    return getattr(error, "strerror", None) or str(error)
