"""Audio → points in a space where music that sounds alike lies close: what style distances are measured in.

Embedders are named in a registry, each loaded when it is first asked for. `musicnn` comes with Woodshed and is the
default: the mean over three-second patches of the last hidden layer of both models. `clap` needs its weights (see
`clap`). Distances in one space say nothing about distances in another, nor does a distance alone say what is heard.
"""

import difflib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from configs.errors import UserError


@runtime_checkable
class Embedder(Protocol):
    """A fixed map from mono audio to a vector."""

    name: str
    fingerprint: str
    """Changes when its answers do: part of the name of everything stored."""
    sample_rate_hz: int
    """What it hears."""
    width: int

    def embed(self, audio: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, "n D"]:
        """A row per clip of mono audio at `sample_rate_hz`."""
        ...


def embed(
    audio: Sequence[Float[np.ndarray, "*C _"]], sample_rate_hz: int = 16_000, embedder: str = "musicnn"
) -> Float[np.ndarray, "n D"]:
    """One float32 vector per clip, whatever its rate, channels and length.

    Args:
        audio: clips [N] or [C, N], full scale 1. Their level is part of what is heard.
        sample_rate_hz: of all of them.
        embedder: a name in `EMBEDDERS`, perhaps with a model: `clap:path/to/folder`.

    Raises:
        UserError: no such embedder, its weights are out of reach, or a clip is empty or not finite.
    """
    ear = load_embedder(embedder)
    clips = [mono(clip, sample_rate_hz, ear.sample_rate_hz) for clip in audio]
    for index, clip in enumerate(clips):
        if not len(clip) or not np.isfinite(clip).all():
            what = "is empty" if not len(clip) else "holds values that are no numbers"
            raise UserError(f"Audio cannot be compared: clip {index} {what}.", fix="Leave it out.")
    if not clips:
        return np.zeros((0, ear.width), np.float32)
    return ear.embed(clips)


@lru_cache(maxsize=4)
def load_embedder(name: str) -> Embedder:
    """The embedder of a name in `EMBEDDERS`, with what follows a colon as its model.

    Raises:
        UserError: no such name, or its weights are out of reach.
    """
    kind, _, model = name.partition(":")
    if kind not in EMBEDDERS:
        near = difflib.get_close_matches(kind, EMBEDDERS, n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"There is no embedder {kind!r}.", fix=f"{guess}There are: {', '.join(EMBEDDERS)}.")
    return EMBEDDERS[kind](model)


def mono(audio: Float[np.ndarray, "*C N"], from_hz: int, to_hz: int) -> Float[np.ndarray, " M"]:
    """The mean of the channels at another rate, float32."""
    import soxr

    mixed = np.atleast_2d(audio).mean(axis=0).astype(np.float32)
    return mixed if from_hz == to_hz or not len(mixed) else soxr.resample(mixed, from_hz, to_hz, quality="HQ")


def _musicnn(model: str) -> Embedder:
    from data_prep.listeners.musicnn.embedder import MusicnnEmbedder

    if model:
        raise UserError("musicnn comes with Woodshed: it takes no model.", fix="Write `musicnn` alone.")
    return MusicnnEmbedder()


def _clap(model: str) -> Embedder:
    from data_prep.listeners.clap import Clap

    return Clap(model)


EMBEDDERS: dict[str, Callable[[str], Embedder]] = {"musicnn": _musicnn, "clap": _clap}
"""Name → what makes it from a model's id or folder (empty: its own default)."""
