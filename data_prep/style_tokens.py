"""Styles as Magenta RealTime 2 follows them: places in a space of 768 numbers, and 12 tokens for each. No torch here.

Words and sound land in the same space; a blend of styles is a weighted mean in it, and the tokens of a place are the
levels of a quantiser. `data_prep.musiccoca` is the official model; a stand-in for tests is here.
"""

import hashlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int16

from configs.errors import UserError

WIDTH = 768
N_TOKENS = 12
CARD = 1024
RATE_HZ = 16_000
STRETCH_SEC = 10
STRETCH_SAMPLES = RATE_HZ * STRETCH_SEC

Embeddings = Float32[np.ndarray, "n 768"]
Tokens = Int16[np.ndarray, "n 12"]


@runtime_checkable
class StyleModel(Protocol):
    """What prep and sampling need of a style model."""

    @property
    def fingerprint(self) -> str:
        """A name for its weights: tokens of different models must not be mixed."""
        ...

    def is_too_long(self, text: str) -> bool:
        """Whether only a text's beginning is heard."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Each text's place in the space of styles."""
        ...

    def embed_sound(self, audio: Float[np.ndarray, "C N"], sample_rate_hz: int) -> Embeddings:
        """The place of every 10 s of a recording."""
        ...

    def tokens(self, embeddings: Embeddings) -> Tokens:
        """The tokens, 0 … 1023, of each place."""
        ...


def blend(embeddings: Embeddings, weights: Sequence[float]) -> Float32[np.ndarray, " 768"]:
    """The weighted mean of some styles, to be turned into tokens. Only the weights' ratios count.

    Raises:
        UserError: a weight is negative or no number, or all are 0.
    """
    array = np.asarray(weights, np.float64)
    if len(array) != len(embeddings) or not np.isfinite(array).all() or (array < 0).any() or array.sum() <= 0:
        raise UserError(
            f"Styles cannot be blended with the weights {list(weights)}.",
            fix=f"Give {len(embeddings)} weights, none negative, at least one above 0.",
        )
    return (array[:, None] * embeddings).sum(0).astype(np.float32) / np.float32(array.sum())


class StandInStyle:
    """Random styles under the same interface, where the official files are not at hand: for trying and testing.

    The same text always has the same place, and the same sound; places that are near share most tokens. What it says
    of music means nothing.
    """

    fingerprint = "stand-in"

    def is_too_long(self, text: str) -> bool:
        """Never."""
        return False

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """A direction drawn from each text alone."""
        return stacked([_drawn(text.lower().encode()) for text in texts])

    def embed_sound(self, audio: Float[np.ndarray, "C N"], sample_rate_hz: int) -> Embeddings:
        """A direction drawn from every 10 s alone."""
        return stacked([_drawn(stretch.tobytes()) for stretch in stretches(audio, sample_rate_hz)])

    def tokens(self, embeddings: Embeddings) -> Tokens:
        """Ten signs per token: on which side of fixed random planes a place lies."""
        planes = np.random.default_rng(0).standard_normal((WIDTH, N_TOKENS * 10))
        bits = (embeddings @ planes > 0).reshape(-1, N_TOKENS, 10)
        return (bits * 2 ** np.arange(10)).sum(-1).astype(np.int16)


def stretches(audio: Float[np.ndarray, "C N"], sample_rate_hz: int) -> list[Float32[np.ndarray, " S"]]:
    """A recording as mono at 16 kHz in stretches of 10 s, the last of which ends where the recording ends."""
    import soxr

    mono = np.ascontiguousarray(audio.mean(0), np.float32)
    if sample_rate_hz != RATE_HZ:
        mono = soxr.resample(mono, sample_rate_hz, RATE_HZ, quality="HQ")
    if len(mono) <= STRETCH_SAMPLES:
        return [np.pad(mono, (0, STRETCH_SAMPLES - len(mono)))] if len(mono) else []
    starts = list(range(0, len(mono) - STRETCH_SAMPLES + 1, STRETCH_SAMPLES))
    if starts[-1] + STRETCH_SAMPLES < len(mono):
        starts.append(len(mono) - STRETCH_SAMPLES)
    return [mono[start : start + STRETCH_SAMPLES] for start in starts]


def _drawn(data: bytes) -> Float32[np.ndarray, " 768"]:
    seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
    drawn = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


def stacked(rows: list[np.ndarray]) -> Embeddings:
    """Single places as one array, also if there is none."""
    return np.stack(rows) if rows else np.zeros((0, WIDTH), np.float32)
