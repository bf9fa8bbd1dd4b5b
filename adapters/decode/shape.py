"""The sizes of a MusicGen decoder, read once from its configuration."""

from dataclasses import dataclass
from typing import Any

from adapters.pattern import max_delay


@dataclass(frozen=True)
class DecoderShape:
    """Sizes that the engine needs; see the alphabet in docs/design.md."""

    n_layers: int
    n_heads: int
    hidden: int
    n_codebooks: int
    card: int
    channels: int
    activation: str

    @classmethod
    def of(cls, config: Any) -> "DecoderShape":
        """Sizes of a `MusicgenDecoderConfig` (the melody decoder's has the same fields)."""
        return cls(
            n_layers=config.num_hidden_layers,
            n_heads=config.num_attention_heads,
            hidden=config.hidden_size,
            n_codebooks=config.num_codebooks,
            card=config.vocab_size,
            channels=config.audio_channels,
            activation=config.activation_function,
        )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.n_heads

    @property
    def special(self) -> int:
        """The id that means "no token here"."""
        return self.card

    @property
    def lag(self) -> int:
        """Largest delay in steps: frame t is whole after step t + lag."""
        return max_delay(self.n_codebooks, self.channels)

    def steps(self, n_frames: int) -> int:
        """Length of the token grid for so many frames, start step included."""
        return 1 + n_frames + self.lag
