"""Does the measure work here? The same distance for music whose answer is known, before any adapter is judged by it.

The person's own music in two halves must lie nearer together than other music lies to it, and other music nearer than
noise. Where that order does not come out, the distance hears nothing of this style, and a verdict on style is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from finetune.judge.distances import kad, median_distance
from finetune.judge.intervals import Estimate

NOISE_LEVEL = 0.1


@dataclass(frozen=True)
class Trust:
    """KAD to the person's music: of more of it, of other music, of noise."""

    own: Estimate
    other: Estimate
    noise: Estimate

    @property
    def holds(self) -> bool:
        """Whether other music is told from the person's own."""
        return (
            self.other.is_above_zero and self.other.value > max(self.own.value, 0) and self.noise.value > self.own.value
        )


def trust_of(
    reference: Float[np.ndarray, "N D"],
    tracks: Sequence[Any],
    other: Float[np.ndarray, "M D"],
    noise: Float[np.ndarray, "P D"],
) -> Trust:
    """Rows of the reference are split by song where there are two songs at least, else in the middle."""
    sigma = median_distance(reference)
    names = sorted(set(tracks))
    first = np.array([names.index(track) % 2 == 0 for track in tracks])
    if len(names) < 2:
        first = np.arange(len(reference)) < len(reference) // 2
    own = kad(reference[first], reference[~first], sigma=sigma)
    return Trust(own, *(kad(rows, reference, sigma=sigma, y_groups=list(tracks)) for rows in (other, noise)))


def pink_noise(n_samples: int, channels: int, seed: int) -> Float[np.ndarray, "C N"]:
    """Noise with as much energy in each octave, as music has roughly."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.normal(size=(channels, n_samples)), axis=1)
    spectrum /= np.sqrt(np.maximum(np.arange(spectrum.shape[1]), 1))
    audio = np.fft.irfft(spectrum, n=n_samples, axis=1)
    return (NOISE_LEVEL * audio / (audio.std() + 1e-12)).astype(np.float32)
