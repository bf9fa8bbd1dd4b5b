"""What the composer writes: notes in parts in a piece, with everything that is true of the piece."""

from dataclasses import dataclass, field

DRUM_CHANNEL = 9
"""General MIDI's percussion channel."""


@dataclass(frozen=True)
class Note:
    """One note. `pitch` is a MIDI number (60 is middle C); on the drum channel it names the drum."""

    start_sec: float
    duration_sec: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Part:
    """What one player plays. `program` counts General MIDI's instruments from 0."""

    role: str
    instrument: str
    program: int
    channel: int
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class Piece:
    """A composed piece. `family` is the lead's; `second` the family of the chords where it is another."""

    seed: int
    manner: str
    family: str
    instrument: str
    second: str
    drums: bool
    tempo_bpm: int
    beats_per_bar: int
    tonic: str
    mode: str
    chords: tuple[str, ...]
    duration_sec: float
    beats_sec: tuple[float, ...] = field(repr=False)
    parts: tuple[Part, ...] = field(repr=False)

    @property
    def key(self) -> str:
        """For example "A minor"."""
        return f"{self.tonic} {self.mode}"

    def facts(self) -> dict[str, object]:
        """Everything but the notes, for a line of JSON."""
        names = ("seed", "manner", "family", "instrument", "second", "drums", "tempo_bpm", "beats_per_bar", "key")
        facts = {name: getattr(self, name) for name in names}
        return facts | {"chords": list(self.chords), "duration_sec": round(self.duration_sec, 3)}
