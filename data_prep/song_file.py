"""A song's file with what its owner says of it, and the line of rejected.jsonl for a thing that was left out."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from data_prep.song_words import Reading


@dataclass(frozen=True)
class SongFile:
    """A file to prepare, and what its owner says of it."""

    path: Path
    relative: str
    """Its place below the song folder, with forward slashes; bytes that are no UTF-8 are written as \\xNN."""
    own_captions: list[str] = field(default_factory=list)
    """The owner's words, from the sidecar first, then from metadata files."""
    fields: dict[str, str] = field(default_factory=dict)
    """Named facts (genre, bpm, key, …), lower-case names; a sidecar's win over a metadata file's."""
    read: list[Reading] = field(default_factory=list)
    """Where each of these stood, and what else was there."""

    def with_words_of(self, other: "SongFile") -> "SongFile":
        """This song with the owner's words for another file of the same music added behind its own."""
        captions = list(dict.fromkeys([*self.own_captions, *other.own_captions]))
        fields, readings = dict(self.fields), list(self.read)
        for reading in other.read:
            if reading.use == "" and reading.field in fields:
                reading = replace(reading, use=f"not used: {reading.field} is stated for {self.relative} already")
            elif reading.use == "":
                fields[reading.field] = reading.text
            readings.append(reading)
        return replace(self, own_captions=captions, fields={**other.fields, **fields}, read=readings)


@dataclass(frozen=True)
class Rejection:
    """A thing that was left out: a line of rejected.jsonl."""

    what: str
    where: str
    why: str
