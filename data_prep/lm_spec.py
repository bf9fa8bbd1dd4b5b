"""What a base model is, in plain numbers: the one description of a language model's shape, read without torch.

Every family of models reads its own configuration files into an `LMSpec` (or a subclass with more fields). Data
preparation, the memory planner, the sampler and the adapter files all ask it, and nothing else.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Literal

from data_prep.pattern_choice import PatternChoice


@dataclass(frozen=True)
class ConditionKind:
    """Something besides the past that the LM can follow, and how its values are stored and read.

    `text` is the kind that every text-to-music model has: states of a text encoder, one set per caption.
    """

    name: str
    width: int
    """Numbers per entry (text: width of the text encoder; melody: pitch classes)."""
    per: Literal["caption", "clip", "frame", "before"] = "caption"
    """What has a value of its own: a caption, a whole clip, or each of a clip's frames (cropped with the clip).
    `before`: the codes of the last `n_entries` frames before a crop; nothing where the crop begins with the clip."""
    values: Literal["floats", "ids"] = "floats"
    enters: Literal["cross-attention", "prefix", "frames"] = "cross-attention"
    """How the LM reads it: cross-attention states, entries before the first step, or an entry for each codec frame
    (which an adapter's settings may still put before the first step: `context.way`)."""
    n_entries: int | None = None
    """Entries of a value where all clips have equally many; None where they differ."""
    rate_hz: float | None = None
    """Entries per second of music, for a kind per frame."""
    lookahead: int = 0
    """Entries behind the end of a crop or a window that are read with it, for a kind per frame."""
    instead_of: str | None = None
    """A kind whose place this one takes: a clip follows one or the other, in training by chance."""
    dropout: float | None = None
    """Share of clips that are trained without it, where that is not the settings' `condition_dropout`: much for what
    is mostly left out when the model plays."""
    made_with: Hashable = None
    """What the source of this name (`data_prep.condition_sources`) must know to make the values."""

    def stretch(self, first_frame: int, n_frames: int, frame_rate: float) -> slice:
        """The entries, of a kind per frame, that belong to so many codec frames of a clip or piece.

        Entries of a prefix are centred: the first stands for the very beginning, and the one at the end counts too.
        """
        rate = (self.rate_hz or frame_rate) / frame_rate
        first = round(first_frame * rate)
        if self.enters != "prefix":
            return slice(first, round((first_frame + n_frames) * rate) + self.lookahead)
        n_entries = 1 + math.floor(n_frames * rate + 1e-9)
        return slice(first, first + min(n_entries, self.n_entries or n_entries))


TEXT = "text"


@dataclass(frozen=True)
class LMSpec:
    """The language model of a base and the codec it speaks. Widths and depths are of the (main) decoder."""

    family: str
    codec: str
    """Kind of codec, as data_prep.codec names them."""
    sample_rate_hz: int
    hop_samples: int
    """Samples of one codec frame; the frame rate is sample_rate_hz / hop_samples, no whole number in general."""
    channels: int
    """1 (mono) or 2 (stereo)."""
    n_codebooks: int
    """K over all channels."""
    card: int
    """Codebook size. The id `card` is the special token where the family has one."""
    lags: tuple[int, ...]
    """Steps by which each codebook lags; see adapters.pattern. All 0 where the pattern is another than delays."""
    hidden: int
    layers: int
    """Decoder layers: as many blocks can be recomputed in the backward pass."""
    heads: int
    ffn: int
    conditions: tuple[ConditionKind, ...] = ()
    positions: int = 0
    """Steps for which positions are stored; 0 where none are."""
    activation: str = "gelu"
    window_sec: float = 30.0
    """Music that the model reads at once, at most: what it was trained on."""
    pattern: PatternChoice | None = None
    """The codebook pattern that it was moved to; None: its own, delays by `lags`."""
    learns_whole: tuple[str, ...] = ()
    """Parts that are new in a base that was moved (`data_prep.move`): the adapter brings their weights."""
    adds_frames: bool = False
    """Whether an adapter can add conditions per frame to the decoder's input (`condition_sources.added`)."""

    @property
    def frame_rate(self) -> float:
        """Codec frames per second."""
        return self.sample_rate_hz / self.hop_samples

    @property
    def follows_frames(self) -> bool:
        """Whether an adapter has added a condition per frame (`adds_frames`)."""
        return self.adds_frames and any(kind.enters == "frames" for kind in self.conditions)

    @property
    def special(self) -> int:
        """The id that means "no code here"."""
        return self.card

    @property
    def largest_lag(self) -> int:
        """Steps after which a frame is whole."""
        return max(self.lags)

    def steps(self, n_frames: int) -> int:
        """Columns that the model reads of a clip: S of `inputs_and_labels`."""
        if self.pattern is None:
            return n_frames + self.largest_lag
        return self.pattern.steps(n_frames, self.n_codebooks, self.channels)

    def in_pattern(self, choice: PatternChoice) -> "LMSpec":
        """The same model moved to another pattern, with positions for as much music as it reads at once."""
        return replace(self, pattern=choice, lags=choice.lags(self.n_codebooks, self.channels)).with_positions()

    def with_positions(self) -> "LMSpec":
        """The same with positions for as much music as it reads at once, where it stores any."""
        span = 0 if self.pattern is None else self.pattern.span_frames
        longest = 1 + self.steps(span or round(self.window_sec * self.frame_rate))
        return replace(self, positions=max(self.positions, longest) if self.positions else 0)

    @property
    def text_width(self) -> int:
        """Width of the text encoder's states; 0 for a model without text."""
        return next((kind.width for kind in self.conditions if kind.name == TEXT), 0)

    def condition(self, name: str) -> ConditionKind:
        """The kind of this name.

        Raises:
            KeyError: the model has no such condition.
        """
        return {kind.name: kind for kind in self.conditions}[name]

    def has(self, name: str) -> bool:
        """Whether the model follows this kind of condition."""
        return any(kind.name == name for kind in self.conditions)


def interleaved_lags(n_codebooks: int, channels: int) -> tuple[int, ...]:
    """Lag of every codebook in MusicGen's delay pattern: k for mono, k // 2 for stereo (left 0, right 0, left 1, …).

    Raises:
        ValueError: the codebooks cannot be shared out among the channels.
    """
    if channels not in (1, 2) or n_codebooks < 1 or n_codebooks % channels:
        raise ValueError(f"{n_codebooks} codebooks cannot be shared out among {channels} channels")
    return tuple(k // channels for k in range(n_codebooks))
