"""Musical keys as people and programs write them, under one set of names: "A minor", "C sharp minor", "E flat major".

Read are English (`A Minor`, `F#m`, `b-flat minor`), German (`a-Moll`, `Fis-Dur`, where B is B flat and H is B),
Italian, French, Spanish and Portuguese names (`la minore`, `si bémol majeur`, `do mayor`), Camelot (`8A`, `08A`) and
Open Key (`1m`, `6d`) numbers as DJ programs write them. Sharps and flats are named as `KEY_NAMES` has them: D flat is
C sharp. It does not know modes besides major and minor.

Camelot: 8A is A minor, 8B C major, one number up is a fifth up. Open Key: 1m is A minor, 1d C major, likewise.
"""

import re
from collections.abc import Iterator

from configs.normal_text import normal_text

KEY_NAMES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
_LETTERS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11, "h": 11}
_SYLLABLES = {"do": 0, "dó": 0, "ut": 0, "re": 2, "ré": 2, "mi": 4, "fa": 5, "sol": 7, "la": 9, "lá": 9, "si": 11}
_SHARP = ("sharp", "dièse", "diese", "diesis", "sostenido", "sustenido", "#", "♯")
_FLAT = ("flat", "bémol", "bemol", "bemolle", "b", "♭")
_MINOR = ("minor", "minore", "mineur", "menor", "moll", "min", "m")
_MAJOR = ("major", "maggiore", "majeur", "mayor", "maior", "dur", "maj")


def _any(words: tuple[str, ...]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_GAP = r"[ \-_]?"
_MODE = rf"(?P<mode>{_any(_MINOR)}|{_any(_MAJOR)})"
_LETTER = rf"(?P<letter>[a-h])(?:{_GAP}(?P<shift>{_any(_SHARP)}|{_any(_FLAT)}))?"
_GERMAN = r"(?P<german>[cdfgah]is|[cdfgh]es|[ea]s|bes)"
_SYLLABLE = rf"(?P<syllable>{_any(tuple(_SYLLABLES))})(?:{_GAP}(?P<shift2>{_any(_SHARP)}|{_any(_FLAT)}))?"
_END = r"(?![\w#♯♭])"
_NOTE = rf"(?:{_GERMAN}|{_SYLLABLE}|{_LETTER})"
_WITH_MODE = re.compile(rf"(?<![\w#♯♭]){_NOTE}[ \-_]{{0,2}}{_MODE}{_END}", re.IGNORECASE)
_ALONE = re.compile(rf"{_NOTE}{_END}", re.IGNORECASE)
_CAMELOT = re.compile(r"(?<!\w)(?P<number>0?[1-9]|1[0-2])(?P<side>[AaBb])(?!\w)")
_OPEN_KEY = re.compile(r"(?<!\w)(?P<number>0?[1-9]|1[0-2])(?P<side>[DdMm])(?!\w)")
_LABEL = re.compile(r"^(?:(?:in )?(?:the )?(?:initial ?)?(?:open ?)?key(?: of| is)? ?[:=]? ?|in )", re.IGNORECASE)
_NAMED = re.compile(r"(?<!\w)(?:in(?: the key of)?|key(?: of| is)?)(?: ?[:=] ?| )(?=\S)", re.IGNORECASE)


def read_key(value: str) -> str | None:
    """The key that a field of that name states; None where it states none, more than one, or nothing we know.

    A letter alone is major when it is upper case and minor when it is lower case, as in the German custom.
    """
    text = normal_text(value).rstrip(".")
    text = _LABEL.sub("", text)
    found = {key for part in re.split(r"[/|,;()]", text) if (key := _whole(part.strip())) is not None}
    rest = [part for part in re.split(r"[/|,;()]", text) if part.strip() and _whole(part.strip()) is None]
    return found.pop() if len(found) == 1 and not rest else None


def find_keys(text: str) -> list[str]:
    """The keys that free words state, in their order.

    Short forms (`Em`, `F#m`) must begin with an upper-case letter, so that "10 am" is no key; a letter without a mode
    counts after "in" or "key". A word too many may be taken for a key ("A minor detail"): that only keeps a measured
    key from being said.
    """
    found = sorted(_mentions(normal_text(text)))
    return list(dict.fromkeys(key for _, key in found))


def _mentions(text: str) -> Iterator[tuple[int, str]]:
    for match in _WITH_MODE.finditer(text):
        if match["mode"].lower() == "m" and (match["mode"] == "M" or match.group()[0].islower()):
            continue
        yield match.start(), _of_match(match)
    for match in _CAMELOT.finditer(text):
        if match["side"].isupper():
            yield match.start(), _of_camelot(match)
    for named in _NAMED.finditer(text):
        match = _ALONE.match(text, named.end())
        if match is not None and text[named.end()].isupper() and not _WITH_MODE.match(text, named.end()):
            yield named.end(), _of_match(match)
        match = _OPEN_KEY.match(text, named.end())
        if match is not None:
            yield named.end(), _of_open_key(match)


def _whole(text: str) -> str | None:
    """The key that the whole of a short text is."""
    if match := _CAMELOT.fullmatch(text):
        return _of_camelot(match)
    if match := _OPEN_KEY.fullmatch(text):
        return _of_open_key(match)
    if (match := _WITH_MODE.fullmatch(text)) or (match := _ALONE.fullmatch(text)):
        return _of_match(match)
    return None


def _of_match(match: re.Match[str]) -> str:
    parts = match.groupdict()
    mode = parts.get("mode") or ""
    note = parts["german"] or parts["syllable"] or parts["letter"]
    unsaid = note[0].islower() and not parts["syllable"]
    minor = mode != "M" and mode.lower() in _MINOR if mode else unsaid
    return _name(_pitch(parts, mode.lower()), minor=minor)


def _pitch(parts: dict[str, str | None], mode: str) -> int:
    if parts["german"]:
        name = parts["german"].lower()
        letter = _LETTERS["b" if name == "bes" else name[0]]
        return letter + (1 if name.endswith("is") else -1)
    if parts["syllable"]:
        return _SYLLABLES[parts["syllable"].lower()] + _step(parts["shift2"])
    letter = (parts["letter"] or "").lower()
    german_b = letter == "b" and not parts["shift"] and mode in ("moll", "dur")
    return _LETTERS[letter] - german_b + _step(parts["shift"])


def _step(shift: str | None) -> int:
    return 0 if not shift else 1 if shift.lower() in _SHARP else -1


def _of_camelot(match: re.Match[str]) -> str:
    minor = match["side"] in "Aa"
    return _name(int(match["number"]) * 7 + (1 if minor else 4), minor=minor)


def _of_open_key(match: re.Match[str]) -> str:
    minor = match["side"] in "Mm"
    return _name(int(match["number"]) * 7 + (2 if minor else 5), minor=minor)


def _name(pitch: int, *, minor: bool) -> str:
    return f"{KEY_NAMES[pitch % 12]} {'minor' if minor else 'major'}"
