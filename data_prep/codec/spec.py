"""What a codec is, in five numbers, and what follows from them. Knows no model and no torch."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class CodecSpec:
    """The numbers that a codec fixes for everything behind it.

    Attributes:
        sample_rate_hz: of the audio it reads and writes.
        hop_samples: samples per frame; the frame rate is their ratio and need not be a whole number.
        channels: of the audio, 1 or 2.
        n_codebooks: K, over all channels.
        card: entries of each codebook.
    """

    sample_rate_hz: int
    hop_samples: int
    channels: int
    n_codebooks: int
    card: int

    def __post_init__(self) -> None:
        if min(self.sample_rate_hz, self.hop_samples, self.n_codebooks) < 1 or self.channels not in (1, 2):
            raise ValueError(f"no codec has these numbers: {self}")
        if self.card < 2:
            raise ValueError(f"a codebook of {self.card} entries says nothing")

    @property
    def frame_rate(self) -> float:
        """Frames per second, `sample_rate_hz / hop_samples`: 50.0 for MusicGen, 86.1328125 for DAC at 44.1 kHz."""
        return self.sample_rate_hz / self.hop_samples

    @property
    def bits_per_code(self) -> float:
        """log2 of the codebook size."""
        return math.log2(self.card)

    @property
    def bitrate_bps(self) -> float:
        """Bits per second of all codebooks, stored without entropy coding."""
        return self.n_codebooks * self.bits_per_code * self.frame_rate

    @property
    def pcm_bitrate_bps(self) -> float:
        """Bits per second of the same audio as 16-bit PCM."""
        return 16.0 * self.sample_rate_hz * self.channels

    @property
    def compression(self) -> float:
        """How many times smaller than 16-bit PCM."""
        return self.pcm_bitrate_bps / self.bitrate_bps

    @property
    def code_dtype(self) -> str:
        """The smallest of numpy's `int16` and `int32` that holds every code and the special token `card`."""
        return "int16" if self.card < 2**15 else "int32"

    def frames_of(self, n_samples: int) -> int:
        """Frames that hold so many samples: the last may be partly filled."""
        return -(-n_samples // self.hop_samples)

    def frames_in(self, seconds: float) -> int:
        """The whole number of frames nearest to a duration."""
        return round(seconds * self.frame_rate)
