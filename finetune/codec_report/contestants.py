"""What is compared: codecs with their first 1 … N codebooks, and Opus at a few bitrates."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float

from configs.errors import UserError
from data_prep.codec.port import Codec
from data_prep.codec_measures.code_use import CodeUse
from data_prep.codec_measures.opus import OPUS_RATE_HZ, through_opus

MAX_LEVELS = 10
"""More counts of codebooks than these are thinned out to powers of two and all."""
OPUS_BPS = (8_000, 14_000, 24_000)


class Contestant(ABC):
    """One thing that keeps audio in few bits. Its levels are what it does with ever more of them."""

    name: str
    sample_rate_hz: int
    channels: int

    @cached_property
    @abstractmethod
    def levels(self) -> list[str]:
        """A name for each level, fewest bits first."""

    @abstractmethod
    def bitrate_bps(self, level: int) -> float:
        """Bits per second of a level."""

    @abstractmethod
    def play(self, audio: Float[np.ndarray, "C N"]) -> Iterator[Float[np.ndarray, "C M"]]:
        """What each level gives back of audio at `sample_rate_hz`."""

    def compression(self, level: int) -> float:
        """How many times smaller than 16-bit PCM at the same rate."""
        return 16 * self.sample_rate_hz * self.channels / self.bitrate_bps(level)


class CodecContestant(Contestant):
    """A codec; `use` counts the codes of everything it was given."""

    def __init__(self, name: str, codec: Codec) -> None:
        self.name, self.codec = name, codec
        self.sample_rate_hz, self.channels = codec.sample_rate_hz, codec.channels
        self.counts = thinned(codec.codebook_counts)
        self.use = CodeUse(codec.n_codebooks, codec.card)

    @cached_property
    def levels(self) -> list[str]:
        """How many codebooks."""
        return [f"{count} codebook{'s' if count > 1 else ''}" for count in self.counts]

    def bitrate_bps(self, level: int) -> float:
        """Of the codes, without entropy coding."""
        return self.codec.bitrate_bps(self.counts[level])

    def play(self, audio: Float[np.ndarray, "C N"]) -> Iterator[Float[np.ndarray, "C M"]]:
        """Encode once, decode the first codebooks of each level."""
        (codes,) = self.codec.encode([torch.from_numpy(np.ascontiguousarray(audio))])
        self.use.add(codes)
        for count in self.counts:
            yield self.codec.decode(np.ascontiguousarray(codes[:count])).numpy()


class OpusContestant(Contestant):
    """Opus. Its bitrates are those of the packets that the encoder made."""

    def __init__(self, channels: int) -> None:
        self.name, self.sample_rate_hz, self.channels = "Opus", OPUS_RATE_HZ, channels
        self.spent: list[list[float]] = [[] for _ in OPUS_BPS]

    @cached_property
    def levels(self) -> list[str]:
        """The bitrates that were asked for."""
        return [f"{bps / 1000:g} kbps" for bps in OPUS_BPS]

    def bitrate_bps(self, level: int) -> float:
        """As measured, or as asked for while nothing was encoded."""
        return float(np.mean(self.spent[level])) if self.spent[level] else float(OPUS_BPS[level])

    def play(self, audio: Float[np.ndarray, "C N"]) -> Iterator[Float[np.ndarray, "C M"]]:
        """Each bitrate."""
        for level, bps in enumerate(OPUS_BPS):
            decoded, spent = through_opus(audio, bps)
            self.spent[level].append(spent)
            yield decoded


def thinned(counts: tuple[int, ...]) -> tuple[int, ...]:
    """All counts where they are few; else the first, those that double, and all codebooks."""
    if len(counts) <= MAX_LEVELS:
        return counts
    kept = {counts[0], counts[-1]}
    place = 1
    while place <= len(counts):
        kept.add(counts[place - 1])
        place *= 2
    return tuple(sorted(kept))


def load_contestants(ids: list[str], device: torch.device) -> list[CodecContestant]:
    """The codecs by name, each once.

    Raises:
        UserError: a codec cannot be found or used.
    """
    from data_prep.codec.registry import load_codec
    from data_prep.codec.resolve import resolve_codec

    if not ids:
        raise UserError("Name at least one codec.", fix="For example --codec starter.")
    return [CodecContestant(id, load_codec(resolve_codec(id), device)) for id in dict.fromkeys(ids)]
