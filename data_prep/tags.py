"""File tags and the owner's fields under one set of names, cleaned and bounded; the owner's fields win.

Every writer has names of its own (ID3 frames, Vorbis comments, iTunes atoms); what is kept is listed in `_NAMES`.
Artist and title are kept as facts about the source, for the dataset's reader; captions never use them (see
`captions`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from configs.normal_text import folded, normal_text
from data_prep.musical_keys import KEY_NAMES, read_key
from data_prep.tempo_words import read_bpm

MAX_CHARS = 120
_NAMES = {
    "artist": ("artist", "album_artist", "albumartist", "performer", "tpe1", "author"),
    "title": ("title", "tit2"),
    "album": ("album", "talb"),
    "year": ("year", "date", "tdrc", "tyer", "originaldate"),
    "genre": ("genre", "style", "styles", "genres", "tcon"),
    "mood": ("mood", "moods", "tmoo"),
    "instruments": ("instruments", "instrument", "instrumentation"),
    "bpm": ("bpm", "tbpm", "tempo", "tmpo"),
    "key": ("key", "initialkey", "initial_key", "initial key", "tkey"),
    "license": ("license", "licence", "copyright", "wcop", "tcop"),
}
_SAYS_NOTHING = frozenset(
    {"", "unknown", "unknown genre", "other", "misc", "none", "n/a", "genre", "default", "various", "-"}
)
SAID_IN_CAPTIONS = frozenset({"caption", "genre", "mood", "instruments", "bpm", "key"})
"""What of all that is read can be words of a caption."""
_SEVERAL = ("genre", "mood", "instruments")
"""Facts that may stand under several names (genre and style); of the others the first name counts."""


@dataclass(frozen=True)
class Fact:
    """What one tag or field states. `text` is empty where it is not used, and `why` says why then."""

    field: str
    name: str = ""
    """Ours; empty for what is none of ours."""
    text: str = ""
    why: str = ""


def normalise(file_tags: Mapping[str, str], fields: Mapping[str, str]) -> dict[str, str]:
    """The facts that file tags and fields state, by our names; what says nothing or makes no sense is left out."""
    facts: dict[str, str] = {}
    for stated in (file_tags, fields):
        found: dict[str, list[str]] = {}
        for fact in facts_of(stated):
            if fact.text:
                found.setdefault(fact.name, []).append(fact.text)
        facts |= {name: plain_text(", ".join(texts)) for name, texts in found.items()}
    return {name: facts[name] for name in _NAMES if name in facts}


def facts_of(stated: Mapping[str, str]) -> list[Fact]:
    """What each tag or field states. Several of one meaning are all kept where that makes sense, or the first."""
    by_name = {folded(name): (name, value) for name, value in stated.items()}
    facts = {}
    for name, aliases in _NAMES.items():
        texts: dict[str, str] = {}
        for alias in aliases:
            if alias in by_name:
                field, value = by_name[alias]
                facts[alias] = fact = _fact(field, name, value, by_name)
                if fact.text and texts and (name not in _SEVERAL or fact.text.casefold() in texts):
                    same = fact.text.casefold() in texts
                    why = "says the same again" if same else f"{next(iter(texts.values()))} is used instead"
                    facts[alias] = Fact(field, name, why=why)
                elif fact.text:
                    texts[fact.text.casefold()] = field
    nothing = "captions and tags have no place for it"
    return [facts.get(alias) or Fact(field, why=nothing) for alias, (field, _) in by_name.items()]


def clean(name: str, value: str) -> str:
    """One fact as plain text on one line; empty where it says nothing."""
    text = plain_text(value)
    if text.lower() in _SAYS_NOTHING or "://" in text or "www." in text.lower():
        return ""
    if name == "bpm":
        bpm = read_bpm(value)
        return "" if bpm is None else str(round(bpm))
    if name == "key":
        return read_key(value) or ""
    return text[:4] if name == "year" and re.match(r"\d{4}", text) else text


def _fact(field: str, name: str, value: str, by_name: Mapping[str, tuple[str, str]]) -> Fact:
    if name == "key":
        value = _with_mode(value, by_name)
    text = clean(name, value)
    if text:
        cut = name not in ("bpm", "key", "year") and len(normal_text(value)) > len(text)
        return Fact(field, name, text, f"only its first {len(text)} characters" if cut else "")
    reasons = {"bpm": "it states no single tempo from 20 to 400", "key": "it states no single key"}
    return Fact(field, name, why=reasons.get(name, "it says nothing") if plain_text(value) else "it says nothing")


def _with_mode(key: str, by_name: Mapping[str, tuple[str, str]]) -> str:
    """A key whose mode stands in a field of its own: `key: A` and `scale: minor`, or both as numbers (9 and 0)."""
    mode = next((by_name[name][1] for name in ("scale", "mode", "key_scale", "key_mode") if name in by_name), "")
    mode = normal_text(mode).lower()
    numbers = {"0": "minor", "1": "major"}
    if re.fullmatch(r"\d|1[01]", key.strip()) and mode in numbers:
        return f"{KEY_NAMES[int(key)]} {numbers[mode]}"
    both = f"{key} {mode}"
    return both if mode and read_key(both) else key


def plain_text(value: str, limit: int = MAX_CHARS) -> str:
    """`normal_text`, cut at a word before the limit."""
    text = normal_text(value[: 4 * limit])
    if len(text) <= limit:
        return text
    return text[:limit].rsplit(" ", 1)[0] if " " in text[:limit] else text[:limit]
