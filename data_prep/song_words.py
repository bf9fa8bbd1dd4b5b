"""Named values that an owner wrote (cells of a table, fields of a JSON file) → captions and facts of a song.

Nothing is dropped in silence: each value is a caption, a fact, or has a reason why it is neither. Sizes are bounded,
so that lyrics or a book do not become a caption.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from configs.normal_text import folded, normal_text
from data_prep.column_names import meaning

MAX_CAPTION_CHARS = 1000
MAX_FIELDS = 64
MAX_FIELD_CHARS = 500


@dataclass(frozen=True)
class Reading:
    """One thing that was read of a song: where it stood, its column or field, its text, and what it became."""

    where: str
    field: str
    text: str
    use: str
    """`caption`, the name of a fact (genre, bpm, …), `name of the song`, or `not used: ` and why. Empty: a fact that
    has not been looked at yet.
    """


@dataclass
class SongWords:
    """Captions and facts with the name each had, and reasons for what could not be used."""

    captions: list[tuple[str, str]] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    unused: list[tuple[str, str, str]] = field(default_factory=list)
    """(name, text, why) of values that are no text."""
    taken_for_name: tuple[str, str] | None = None
    """(name, text) that was taken for the song's name though it is another."""
    problems: list[str] = field(default_factory=list)


def song_words(values: Iterable[tuple[str, Any]]) -> SongWords:
    """Sort named values into captions and facts."""
    words = SongWords()
    for name, value in values:
        if value is None or value == "" or value == []:
            continue
        try:
            _sort(_text(str(name)), value, words)
        except ValueError as error:
            words.problems.append(str(error))
    if len(words.facts) > MAX_FIELDS:
        words.problems.append(f"{len(words.facts)} fields, at most {MAX_FIELDS} are read")
        words.facts = words.facts[:MAX_FIELDS]
    return words


def caption_text(value: Any) -> str:
    """A caption on one line.

    Raises:
        ValueError: it is no text, or too long to be a caption.
    """
    if not isinstance(value, str):
        raise ValueError(f"a caption must be text, got {type(value).__name__}")
    text = _text(value)
    if len(text) > MAX_CAPTION_CHARS:
        raise ValueError(f"too long for a caption: {len(text)} characters, at most {MAX_CAPTION_CHARS}")
    return text


def _sort(name: str, value: Any, words: SongWords) -> None:
    kind = meaning(name)
    if kind == "keywords":
        listed = _listed(value)
        joined = ", ".join(str(item) for item in listed) if all(map(_is_plain, listed)) else value
        _add_captions(name, [joined], words)
    elif kind == "caption":
        _add_captions(name, _listed(value), words)
    elif isinstance(value, list) and value and all(map(_is_plain, value)):
        _add_fact(name, ", ".join(_text(str(item)) for item in value), words)
    elif _is_plain(value):
        _add_fact(name, _text(str(value)), words)
    else:
        words.unused.append((name, _shown(value), f"neither text nor a number ({type(value).__name__})"))


def _add_captions(name: str, values: list[Any], words: SongWords) -> None:
    for value in values:
        try:
            text = caption_text(value)
        except ValueError as error:
            words.problems.append(str(error))
            continue
        if text:
            words.captions.append((name, text))
        elif value:
            words.unused.append((name, "", "nothing that can be read"))


def _add_fact(name: str, text: str, words: SongWords) -> None:
    if len(text) > MAX_FIELD_CHARS or len(name) > MAX_FIELD_CHARS:
        raise ValueError(f"field {name[:40]!r} is too long: at most {MAX_FIELD_CHARS} characters")
    if not folded(name) or not text:
        words.unused.append((name, text, "it has no name" if text else "nothing that can be read"))
    else:
        words.facts.append((folded(name), text))


def _listed(value: Any) -> list[Any]:
    """A list's entries; a text such as `["a", "b"]` is a list too, as tables write it."""
    if isinstance(value, list):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*\[.*\]\s*", value, re.DOTALL):
        quoted = re.findall(r"'((?:[^'\\]|\\.)*)'(?=\s*[,\]])|\"((?:[^\"\\]|\\.)*)\"", value)
        if quoted:
            return [one or other for one, other in quoted]
    return [value]


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _text(value: str) -> str:
    """On one line, unless it cannot be written: JSON can spell half of a character."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"no text: half a character in {value[:40]!r}") from error
    return normal_text(value)


def _shown(value: Any) -> str:
    return normal_text(str(value)[:200])[:100]
