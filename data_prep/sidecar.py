"""The owner's words beside a song: `song.txt` is a caption, `song.json` holds fields, for `song.mp3` or any other kind.

`song.mp3.txt` and `song.mp3.json` come first. Read too are the names that other tools use: `song.caption`,
`song.caption.txt`, `song.prompt.txt`, `song_caption.txt`, `song_prompt.txt`, in any case, whether the file system
writes an accent as one character or as two. In the JSON, captions are what `column_names` takes for one; the rest are
fields: text, numbers, or lists of these. It does not read lyrics.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.normal_text import folded
from data_prep.names import printable
from data_prep.song_words import SongWords, caption_text, song_words

MAX_FILE_BYTES = 64 * 1024
_CAPTION_END = r"(?:[._-](?:captions?|prompts?|descriptions?|tags))?"
_SIDECAR = re.compile(rf"(?:{_CAPTION_END}\.txt|\.json|\.caption|\.prompt)")
_LYRICS = re.compile(r"[._-]lyrics?\.txt|\.lrc")


@dataclass
class Sidecars:
    """What lay beside one song, by the file it stood in; `refused` names files, or parts of one, that could not be
    used, with the reason.
    """

    words: list[tuple[str, SongWords]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    """Every file that was looked into or is known not to be read, such as lyrics."""


class Beside:
    """The files of folders by their names as a person sees them, to find those that belong to a song.

    Where `songs` differ in upper case or in how an accent is encoded alone, a file belongs to the one it spells.
    """

    def __init__(self, files: Iterable[Path], songs: Iterable[Path] = ()) -> None:
        self._of: dict[tuple[Path, str], list[tuple[str, Path]]] = {}
        self._spelled = {(song.parent, name) for song in songs for name in (song.name, song.stem)}
        for path in files:
            name = folded(printable(path.name))
            for end in _ends(name):
                self._of.setdefault((path.parent, name[: len(name) - len(end)]), []).append((end, path))

    def of(self, song: Path) -> list[tuple[str, Path]]:
        """(ending, file) of each file that belongs to a song, those named after its whole name first."""
        keys = dict.fromkeys((folded(printable(song.name)), folded(printable(song.stem))))
        found: list[tuple[str, Path]] = []
        for key in keys:
            found += sorted(self._of.get((song.parent, key), []), key=lambda pair: (pair[0] == ".json", pair))
        return [(end, path) for end, path in found if path != song and not self._is_of_another(end, path, song)]

    def _is_of_another(self, end: str, path: Path, song: Path) -> bool:
        spelled = path.name[: len(path.name) - len(end)]
        return spelled not in (song.name, song.stem) and (path.parent, spelled) in self._spelled


def _ends(name: str) -> list[str]:
    """All endings under which a file's name can be a song's name and more: `.txt` and `.caption.txt`."""
    places = [match.start() for match in re.finditer(r"[._-]", name)]
    return [name[at:] for at in places if at and (_SIDECAR.fullmatch(name, at) or _LYRICS.fullmatch(name, at))]


def read_sidecars(song: Path, beside: Beside | None = None) -> Sidecars:
    """Read all sidecars of a song; a file that cannot be used is named in the result and does not stop the rest."""
    if beside is None:
        beside = Beside(path for path in song.parent.iterdir() if os.path.isfile(path))  # noqa: PTH113 long names
    found = Sidecars()
    for end, path in beside.of(song):
        name = printable(path.name)
        found.paths.append(path)
        if _LYRICS.fullmatch(end):
            found.words.append((name, SongWords(unused=[("", "", "lyrics are not read")])))
            continue
        try:
            words = _read(path, end)
        except (OSError, ValueError, RecursionError) as error:
            found.refused.append((name, _plain(error)))
            continue
        found.words.append((name, words))
        found.refused += [(name, problem) for problem in words.problems]
    return found


def decode_text(data: bytes) -> str:
    """UTF-8, or UTF-16 where its mark is there.

    Raises:
        ValueError: it is neither.
    """
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8 text: save it again as UTF-8") from error
    if "\0" in text:
        raise ValueError("not UTF-8 text (it holds zero bytes): save it again as UTF-8")
    return text


def load_json(text: str) -> Any:
    """JSON with every key kept: the values of one that is there twice become a list.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deep.
    """
    return json.loads(text, object_pairs_hook=_with_all_values)


def _with_all_values(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            held = values[name]
            value = [*(held if isinstance(held, list) else [held]), *(value if isinstance(value, list) else [value])]
        values[name] = value
    return values


def _read(path: Path, end: str) -> SongWords:
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES // 1024} KB, too much for a sidecar")
    text = decode_text(data)
    if end != ".json":
        several = re.search(r"(?:captions|prompts|descriptions)\.txt$", end) is not None
        texts = filter(None, map(caption_text, text.splitlines() if several else [text]))
        return SongWords(captions=[("", said) for said in texts])
    values = load_json(text)
    if isinstance(values, str):
        values = [values]
    if isinstance(values, list) and values and all(isinstance(value, str) for value in values):
        values = {"captions": values}
    if not isinstance(values, dict):
        raise ValueError('expected an object such as {"genre": "blues"}')
    return song_words(values.items())


def _plain(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg} in line {error.lineno}"
    if isinstance(error, RecursionError):
        return "not usable JSON: nested too deep"
    return getattr(error, "strerror", None) or str(error)
