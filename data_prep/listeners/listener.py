"""The port of listeners: what hears a clip and says something of it.

A listener is given the audio of a clip and what is known of it already, and answers with words and with how sure it is
of them. It knows nothing of captions, datasets or caches: `listening` runs it over clips and keeps its answers,
`word_filter` cleans every listener's words, `captions` decides where they stand. Who there is, is in `registry`; what
turns audio into vectors, in `embedding`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

VOCALS_FOUND = "vocals_found"
"""Flag: somebody sings or speaks."""


@dataclass(frozen=True)
class Known:
    """What is known of a clip before anyone listens."""

    own: Sequence[str] = ()
    """The owner's captions of the song."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """From `tags.normalise`: artist, title, genre and so on."""
    stems: str = "mix"
    """Which version of the track it is: the recording, or stems of it."""


@dataclass(frozen=True)
class Answer:
    """What one listener says of one clip."""

    words: tuple[str, ...] = ()
    """Single words and short phrases that can stand in a caption, the surest first."""
    text: str = ""
    """A caption in sentences."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """How sure it is of what it says, and of more that it does not say; 0 to 1 where it is a probability."""
    flags: tuple[str, ...] = ()
    """What the person should know, e.g. `VOCALS_FOUND`."""
    removed: tuple[str, ...] = ()
    """What the word filter took out."""

    def to_json(self, *, scores: bool = True) -> dict[str, Any]:
        """Plain values, with or without the scores; what is empty is left out."""
        kept = {name: round(float(value), 4) for name, value in self.scores.items()} if scores else {}
        lists = {name: list(getattr(self, name)) for name in ("words", "flags", "removed")}
        return {name: value for name, value in (lists | {"text": self.text, "scores": kept}).items() if value}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Answer":
        """The inverse of `to_json`."""
        lists = {name: tuple(value.get(name, ())) for name in ("words", "flags", "removed")}
        return Answer(text=value.get("text", ""), scores=dict(value.get("scores", {})), **lists)


@runtime_checkable
class Listener(Protocol):
    """Something that hears. Its answer about a clip depends on the clip alone, not on others beside it."""

    name: str
    """Stored beside its words: where they come from."""
    fingerprint: str
    """Changes when its answers do (weights, prompt, list of words): part of the name of everything stored."""
    sample_rate_hz: int
    """What it hears, in mono."""
    batch_size: int
    """How many clips it wants at once."""

    def listen(self, audio: Sequence[Float[np.ndarray, " _"]], known: Sequence[Known]) -> list[Answer]:
        """One answer per clip of mono audio at `sample_rate_hz`."""
        ...
