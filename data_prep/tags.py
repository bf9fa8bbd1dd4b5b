"""File tags and the owner's fields under one set of names, cleaned and bounded; the owner's fields win.

Every writer has names of its own (ID3 frames, Vorbis comments, iTunes atoms); what is kept is listed in `_NAMES`.
Artist and title are kept as facts about the source, for the dataset's reader; captions never use them (see
`captions`).
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping

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
_NOTE = r"([A-Ga-g])\s*(#|♯|b|♭|[- ]?sharp|[- ]?flat)?"
_KEY = re.compile(rf"^{_NOTE}\s*(m|min|minor|maj|major|-moll|-dur|M)?\.?$")
_CAMELOT = re.compile(r"^(1[0-2]|[1-9])\s*([ABab])$")
_PITCHES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
KEY_NAMES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")


def normalise(file_tags: Mapping[str, str], fields: Mapping[str, str]) -> dict[str, str]:
    """The facts that file tags and fields state, by our names; what says nothing or makes no sense is left out."""
    facts: dict[str, str] = {}
    for stated in (file_tags, fields):
        lowered = {name.strip().lower(): value for name, value in stated.items()}
        for name, aliases in _NAMES.items():
            value = _first(clean(name, lowered[alias]) for alias in aliases if alias in lowered)
            if value:
                facts[name] = value
    return facts


def clean(name: str, value: str) -> str:
    """One fact as plain text on one line; empty where it says nothing."""
    text = plain_text(value)
    if text.lower() in _SAYS_NOTHING or "://" in text or "www." in text.lower():
        return ""
    if name == "bpm":
        return _bpm(text)
    if name == "key":
        return _key(text)
    return text[:4] if name == "year" and re.match(r"\d{4}", text) else text


def plain_text(value: str, limit: int = MAX_CHARS) -> str:
    """NFC, without control and formatting characters, single spaces, cut at a word before the limit."""
    kept = "".join(
        " " if unicodedata.category(c)[0] == "Z" else c for c in unicodedata.normalize("NFC", value[: 4 * limit])
    )
    text = " ".join("".join(" " if c in "\n\r\t\0" else c for c in kept if _printable(c)).split())
    if len(text) <= limit:
        return text
    return text[:limit].rsplit(" ", 1)[0] if " " in text[:limit] else text[:limit]


def _printable(character: str) -> bool:
    return character in "\n\r\t\0" or unicodedata.category(character)[0] != "C"


def _first(values: Iterable[str]) -> str:
    return next(filter(None, values), "")


def _bpm(text: str) -> str:
    """Whole beats per minute; 20 to 400 is what a tempo can be."""
    match = re.match(r"\d+(\.\d+)?", text.replace(",", "."))
    bpm = float(match.group()) if match else 0.0
    return str(round(bpm)) if 20 <= bpm <= 400 else ""


def _key(text: str) -> str:
    """`Am`, `a minor`, `A-moll`, `8A` (Camelot) → `A minor`; anything else is no key."""
    camelot = _CAMELOT.match(text)
    if camelot:
        number, minor = int(camelot.group(1)), camelot.group(2) in "Aa"
        pitch = (number * 7 + (1 if minor else 4)) % 12  # 8A is A minor, 8B C major, a fifth up per number
        return f"{KEY_NAMES[pitch]} {'minor' if minor else 'major'}"
    match = _KEY.match(text)
    if match is None:
        return ""
    letter, accidental, mode = match.group(1), (match.group(2) or "").strip(" -"), match.group(3) or ""
    shift = {"": 0, "#": 1, "♯": 1, "sharp": 1, "b": -1, "♭": -1, "flat": -1}[accidental]
    minor = mode in ("m", "min", "minor", "-moll") or (not mode and letter.islower())
    return f"{KEY_NAMES[(_PITCHES[letter.upper()] + shift) % 12]} {'minor' if minor else 'major'}"
