"""What a trained codec keeps of songs that it never heard, measured through the codec port as everybody uses it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from data_prep.codec.port import Codec
from data_prep.codec_measures.code_use import CodeUse
from data_prep.codec_measures.si_sdr import si_sdr_db
from finetune.codec_tune.losses import MelLoss

MEASURED_SEC = 10.0
"""Of each song so much, from its middle, is decoded and compared; all of it counts for the use of codes."""


@dataclass(frozen=True)
class Figures:
    """Means over held-out songs.

    Attributes:
        mel: mel distance in nats with 1 … K codebooks.
        si_sdr_db: with 1 … K codebooks.
        in_use: share of entries chosen at all, by codebook.
        perplexity: 2 to the entropy of the codes, by codebook; the most is the number of entries.
        efficiency: entropy of all codes over their bits.
        kbps: bits per second stored without entropy coding, in thousands.
        n_frames: how many frames were counted; fewer than some ten times the entries make the last figures too low.
    """

    mel: list[float]
    si_sdr_db: list[float]
    in_use: list[float]
    perplexity: list[float]
    efficiency: float
    kbps: float
    n_frames: int

    def to_json(self) -> dict[str, Any]:
        """All of them."""
        return asdict(self)


@torch.inference_mode()
def figures_of(codec: Codec, songs: Sequence[Int[np.ndarray, " _"]]) -> Figures:
    """Measure a mono codec on songs at its rate, as 16-bit samples."""
    mel_loss, use = MelLoss(codec.sample_rate_hz), CodeUse(codec.n_codebooks, codec.card)
    mel: list[list[float]] = []
    sdr: list[list[float]] = []
    for song in songs:
        (codes,) = codec.encode([as_audio(song)])
        use.add(codes)
        wanted = as_audio(middle(song, round(MEASURED_SEC * codec.sample_rate_hz)))
        (codes,) = codec.encode([wanted])
        made = [codec.decode(np.ascontiguousarray(codes[:count]))[:, : wanted.shape[1]]
                for count in codec.codebook_counts]  # fmt: skip
        mel.append([float(mel_loss(one[None], wanted[None])) for one in made])
        sdr.append([si_sdr_db(one, wanted) for one in made])
    return Figures(
        mel=[fmean(row) for row in zip(*mel, strict=True)],
        si_sdr_db=[fmean(row) for row in zip(*sdr, strict=True)],
        in_use=use.shares_in_use(),
        perplexity=use.perplexity(),
        efficiency=use.bitrate_efficiency(),
        kbps=codec.bitrate_bps() / 1000,
        n_frames=use.n_frames,
    )


def middle(song: Int[np.ndarray, " _"], n_samples: int) -> Int[np.ndarray, " _"]:
    """So many samples from the middle of a song, or all of a shorter one."""
    start = max(0, (len(song) - n_samples) // 2)
    return song[start : start + n_samples]


def as_audio(song: Int[np.ndarray, " _"]) -> Float[torch.Tensor, "1 _"]:
    """16-bit samples in -1 … 1, one channel."""
    return torch.from_numpy(song.astype(np.float32) / 32768)[None]
