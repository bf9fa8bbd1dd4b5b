"""What a codec of one's own is and how it learns, in plain numbers that are checked together before any work."""

import math
from dataclasses import dataclass
from typing import Literal

from configs.errors import UserError

QuantiserKind = Literal["residual", "grouped", "hierarchical"]
KINDS: tuple[QuantiserKind, ...] = ("residual", "grouped", "hierarchical")
MOST_PER_STRIDE = 10
"""A convolution that steps over more samples than this at once hears badly between its steps."""
STRIDES = 4
"""As many down-sampling convolutions as EnCodec has, where the hop can be cut so."""


@dataclass(frozen=True)
class CodecSettings:
    """The codec (EnCodec's convolutions around a quantiser) and how it learns. Each frame is `hop` samples.

    Attributes:
        sample_rate_hz: of the audio.
        upsampling: factors of the hop, as the decoder goes through them.
        filters: channels of the first and last convolution; they double at every stride.
        width: channels of the encoder's output.
        codebook_dim: codebooks live in this many dimensions, behind a linear projection (factorised codes, Yu et al.
            2021, arXiv:2110.04627); equal to `width` means no projection, unless `cosine` is on.
        card: entries of each codebook.
        n_codebooks: how many.
        quantiser: `residual`, each codebook codes what the ones before left (Zeghidour et al. 2021, arXiv:2107.03312);
            `grouped`, each codes its own channels (product quantisation, Jégou et al. 2011);
            `hierarchical`, residual, the first codebooks with one code for several frames (SNAC, Siuzdak et al. 2024,
            arXiv:2410.14411).
        ema: codebooks follow a running mean of what they are chosen for; False: they learn by the codebook loss.
        commitment: weight of the loss that keeps latents near their codes.
        cosine: codes are directions of length 1, each codebook behind projections of its own (as in DAC, Kumar et al.
            2023, arXiv:2306.06546).
        kmeans: codebooks begin as k-means of latents; False: at random.
        expire: a code chosen less often than this share of the mean is replaced by a latent of the batch; 0: never.
        quantizer_dropout: share of steps that use fewer than all codebooks.
        lstm_layers: between convolutions and latents.
        crop_sec: length of a crop.
        batch_size: crops per step.
        lr: learning rate after a warm-up of 50 steps; it falls to a twentieth over the last third.
        steps: optimizer steps in all.
        quantize_from: until this step it is a plain autoencoder; then the codebooks begin.
        adversarial_from: discriminators join at this step; -1: never.
        seed: of weights, crops and replaced codes.
    """

    sample_rate_hz: int = 16_000
    upsampling: tuple[int, ...] = (5, 4, 4, 4)
    filters: int = 16
    width: int = 32
    codebook_dim: int = 32
    card: int = 512
    n_codebooks: int = 4
    quantiser: QuantiserKind = "residual"
    ema: bool = True
    commitment: float = 0.25
    cosine: bool = False
    kmeans: bool = True
    expire: float = 0.1
    quantizer_dropout: float = 0.5
    lstm_layers: int = 1
    crop_sec: float = 0.6
    batch_size: int = 6
    lr: float = 1e-3
    steps: int = 20_000
    quantize_from: int = 1_000
    adversarial_from: int = -1
    seed: int = 0

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.upsampling)

    @property
    def frame_rate_hz(self) -> float:
        """Frames per second."""
        return self.sample_rate_hz / self.hop

    @property
    def strides(self) -> tuple[int, ...]:
        """Frames that share a code, by codebook: 1, but where it is hierarchical 4, 2, 1, 1 … from the first on."""
        if self.quantiser != "hierarchical":
            return (1,) * self.n_codebooks
        return tuple(max(1, 4 >> number) for number in range(self.n_codebooks))

    @property
    def latent_dim(self) -> int:
        """Channels between the encoder's and the decoder's part of the exported model."""
        return self.width if self.cosine else self.codebook_dim

    def check(self) -> None:
        """Whether these go together.

        Raises:
            UserError: with every reason why not.
        """
        wrong = self.problems()
        if wrong:
            raise UserError(
                f"No codec can be trained like this: {'; '.join(wrong)}.",
                fix="`woodshed codec train --help` says what each option takes.",
            )

    def problems(self) -> list[str]:
        """Why these do not go together, a few words each."""
        grouped = self.quantiser == "grouped"
        every = [
            (self.quantiser not in KINDS, f"the quantiser is one of {', '.join(KINDS)}"),
            (not 4_000 <= self.sample_rate_hz <= 96_000, "the sample rate lies between 4,000 and 96,000 Hz"),
            (not 1 <= self.n_codebooks <= 32, "there are 1 to 32 codebooks"),
            (not 4 <= self.card <= 32_768, "a codebook has 4 to 32,768 entries"),
            (self.codebook_dim < 1 or self.codebook_dim > self.width, f"codes have 1 to {self.width} dimensions"),
            (grouped and self.codebook_dim % max(1, self.n_codebooks) != 0,
             f"{self.codebook_dim} dimensions cannot be shared by {self.n_codebooks} groups"),
            (grouped and self.cosine, "cosine codebooks are for residual and hierarchical quantisers"),
            (self.cosine and not self.ema, "cosine codebooks follow running means; they are not learnt"),
            (self.commitment < 0 or not 0 <= self.expire < 1, "commitment is 0 or more, expire 0 to below 1"),
            (min(self.steps, self.batch_size, self.width) < 1 or self.lr <= 0 or self.crop_sec <= 0,
             "steps, batch size, width, crop length and learning rate are above 0"),
            (self.filters < 2, "there are 2 filters or more"),
            (not 0 <= self.quantize_from < max(1, self.steps), "the codebooks begin before the last step"),
        ]  # fmt: skip
        return [words for fails, words in every if fails]


def strides_for(sample_rate_hz: int, frame_rate_hz: float) -> tuple[int, ...]:
    """Factors of the hop between a sample rate and a frame rate, largest first: 32,000 and 50 give 8, 5, 4, 4.

    Raises:
        UserError: the hop is no whole number, or cannot be cut into strides of at most 10.
    """
    hop = sample_rate_hz / frame_rate_hz if frame_rate_hz > 0 else 0.0
    factors = _prime_factors(round(hop)) if hop >= 4 and abs(hop - round(hop)) < 1e-6 else [0]
    if max(factors) == 0 or max(factors) > MOST_PER_STRIDE:
        raise UserError(
            f"{frame_rate_hz:g} frames per second cannot be made of {sample_rate_hz} Hz: the samples per frame must be "
            "a whole number whose prime factors are at most 7.",
            fix="For example --rate 32000 --frame_rate 50, or --rate 44100 --frame_rate 86.1328125.",
        )
    while len(factors) > STRIDES and factors[0] * factors[1] <= MOST_PER_STRIDE:
        factors = sorted([factors[0] * factors[1], *factors[2:]])
    return tuple(reversed(factors))


def _prime_factors(number: int) -> list[int]:
    found, factor = [], 2
    while number > 1:
        while number % factor == 0:
            found.append(factor)
            number //= factor
        factor += 1
    return found
