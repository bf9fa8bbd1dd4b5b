"""Which codebook pattern a language model is moved to, by name, and how many steps a clip takes under it: no torch.

The patterns themselves are in `adapters.pattern*`; `adapters.pattern_names` makes the one that is meant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from configs.pattern_names import PatternName


@dataclass(frozen=True)
class PatternChoice:
    """A pattern by name. `span_frames`: with coarse first, the frames whose coarse codes come before any fine one."""

    name: PatternName
    span_frames: int = 0

    def __post_init__(self) -> None:
        if (self.span_frames > 0) != (self.name == "coarse_first") or self.span_frames < 0:
            raise ValueError(f"{self.name} with a span of {self.span_frames} frames: only coarse_first has one")

    def lags(self, n_codebooks: int, channels: int) -> tuple[int, ...]:
        """By how many steps each codebook is late; none where the pattern is no matter of delays."""
        if self.name == "delay":
            return tuple(k // channels for k in range(n_codebooks))
        return tuple(int(self.name == "partial_delay" and k >= channels) for k in range(n_codebooks))

    def steps(self, n_frames: int, n_codebooks: int, channels: int) -> int:
        """Columns that the model reads of a clip of so many frames: the start step in, the last column out."""
        if self.name == "coarse_first":
            return self.span_frames + n_frames
        per_frame = {"partial_flattening": 2, "flattening": n_codebooks}.get(self.name, 1)
        return per_frame * n_frames + max(self.lags(n_codebooks, channels))

    @property
    def words(self) -> str:
        """For people: "coarse first"."""
        return self.name.replace("_", " ")

    def is_own(self, lags: Sequence[int], channels: int) -> bool:
        """Whether this is what a model with these lags does already."""
        delays = self.name in ("parallel", "partial_delay", "delay")
        return delays and self.lags(len(lags), channels) == tuple(lags)
