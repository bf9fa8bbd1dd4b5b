"""What a language model must beat: each codebook's tokens guessed from their frequencies, and from the token before."""

import numpy as np
from jaxtyping import Int16

PSEUDO_COUNT = 0.5


class NGrams:
    """Unigrams and bigrams of one codebook, smoothed: a bigram backs off to the unigram where it has seen little."""

    def __init__(self, pieces: list[Int16[np.ndarray, " _"]], card: int) -> None:
        counts = np.full(card, PSEUDO_COUNT)
        pairs = np.zeros((card, card), np.float32)
        for codes in pieces:
            counts += np.bincount(codes, minlength=card)
            np.add.at(pairs, (codes[:-1], codes[1:]), 1)
        self.unigram = counts / counts.sum()
        self.pairs = pairs
        self.seen = pairs.sum(axis=1)
        self.kinds = (pairs > 0).sum(axis=1)

    def unigram_nats(self, codes: Int16[np.ndarray, " T"]) -> float:
        """Mean cross-entropy of a piece."""
        return float(-np.log(self.unigram[codes[1:]]).mean())

    def bigram_nats(self, codes: Int16[np.ndarray, " T"]) -> float:
        """Mean cross-entropy of a piece, each token given the one before (Witten-Bell back-off)."""
        before, now = codes[:-1], codes[1:]
        trust = self.seen[before] / np.maximum(self.seen[before] + self.kinds[before], 1)
        told = self.pairs[before, now] / np.maximum(self.seen[before], 1)
        return float(-np.log(trust * told + (1 - trust) * self.unigram[now]).mean())
