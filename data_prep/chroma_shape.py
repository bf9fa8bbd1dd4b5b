"""How a base's chroma is made, in numbers: read without torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ChromaShape:
    """How a base's chroma is made. A frame stands at every `hop_samples`, the first at 0."""

    sample_rate_hz: int = 32_000
    n_fft: int = 16_384
    hop_samples: int = 4096
    n_chroma: int = 12

    @property
    def rate_hz(self) -> float:
        """Frames per second; MusicGen's: 7.8125."""
        return self.sample_rate_hz / self.hop_samples
