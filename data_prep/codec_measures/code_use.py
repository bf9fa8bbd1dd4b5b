"""How well codebooks are used: a code that is never chosen is wasted, and so are bits of codes that hardly are.

Bitrate efficiency as in the Descript Audio Codec's paper (Kumar et al. 2023, arXiv:2306.06546): the entropies of the
codebooks over a test set, summed, over the bits that the codes take. Few frames cannot fill a large codebook: with
fewer frames than entries both figures are too low, and `n_frames` says how many there were.
"""

import numpy as np
from jaxtyping import Float, Int


class CodeUse:
    """Counts of every code of every codebook, over any number of clips."""

    def __init__(self, n_codebooks: int, card: int) -> None:
        self.counts = np.zeros((n_codebooks, card), np.int64)

    def add(self, codes: Int[np.ndarray, "K T"]) -> None:
        """Count a clip's codes."""
        for codebook, row in enumerate(codes):
            self.counts[codebook] += np.bincount(row, minlength=self.counts.shape[1])

    @property
    def n_frames(self) -> int:
        """How many frames were counted."""
        return int(self.counts[0].sum())

    def entropy_bits(self) -> Float[np.ndarray, " K"]:
        """Entropy of each codebook, in bits."""
        share = self.counts / np.maximum(1, self.counts.sum(axis=1, keepdims=True))
        logs = np.log2(share, where=share > 0, out=np.zeros_like(share))
        return -(share * logs).sum(axis=1)

    def perplexity(self) -> list[float]:
        """Of each codebook, 2 to its entropy: how many equally likely codes would say as much."""
        return [float(value) for value in 2 ** self.entropy_bits()]

    def shares_in_use(self) -> list[float]:
        """Of each codebook, the share of entries that were chosen at all."""
        return [float(share) for share in (self.counts > 0).mean(axis=1)]

    def bitrate_efficiency(self, n_codebooks: int | None = None) -> float:
        """Entropy over bits of the first codebooks: 1 where every code is equally likely."""
        return float(self.entropy_bits()[:n_codebooks].mean() / np.log2(self.counts.shape[1]))

    def codes_in_use(self, n_codebooks: int | None = None) -> float:
        """Share of the first codebooks' entries that were chosen at all."""
        return float((self.counts[:n_codebooks] > 0).mean())
