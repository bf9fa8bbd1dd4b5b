"""The songs of a folder by their names, to find the one that a metadata file means.

A name is looked for as it is written; then without regard to how accents are encoded and to upper case; then without
the ending (the song was converted since, or the table leaves it out). A name that fits several songs fits none. A
path from another place (`/home/me/audio/a.wav`) means the only song of that last name.
"""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from configs.normal_text import folded
from data_prep.metadata_table import is_audio_name


class SongIndex:
    """Finds songs by what a metadata file calls them. Names are relative to the song folder, with forward slashes."""

    def __init__(self, songs: Iterable[str]) -> None:
        self._exact = set(songs)
        self._alike: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        self._last: dict[str, list[str]] = {}
        for song in sorted(self._exact):
            self._alike.setdefault(folded(song), []).append(song)
            self._stems.setdefault(folded(_stem(song)), []).append(song)
            self._last.setdefault(base_name(song), []).append(song)

    def is_song(self, name: str) -> bool:
        """Whether a song is called exactly that."""
        return name in self._exact

    def find(self, name: str) -> list[str]:
        """The songs that a name may mean, by the strictest rule that finds any."""
        if name in self._exact:
            return [name]
        if found := self._alike.get(folded(name)):
            return found
        return self._stems.get(folded(name), []) or (
            self._stems.get(folded(_stem(name)), []) if is_audio_name(name) else []
        )

    def below(self, folder: PurePosixPath, path: str) -> str:
        """The only song in or below a folder whose last name is that of a path from another place; else nothing."""
        place = path.strip().replace("\\", "/")
        found = [song for song in self._last.get(base_name(place), []) if PurePosixPath(song).is_relative_to(folder)]
        return found[0] if len(found) == 1 and "/" in place and ".." not in place.split("/") else ""

    def has(self, name: str, below: PurePosixPath) -> bool:
        """Whether a table's cell in the folder `below` is a song's name."""
        if is_audio_name(name):
            return True
        text = name.strip().replace("\\", "/")
        return bool(text) and len(text) < 500 and bool(self.find((below / text).as_posix()))


def base_name(path: str) -> str:
    """The last part of a path, with either kind of slash, for comparing."""
    return folded(path.replace("\\", "/").rpartition("/")[2])


def _stem(name: str) -> str:
    """A path without the last ending of at most five characters."""
    return re.sub(r"(?<=[^/])\.\w{1,5}$", "", name)
