"""What each option does: short trainings that differ from the first in one thing, all else equal, on the same songs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from finetune.codec_train.settings import CodecSettings

NARROW_DIM = 8
"""Dimensions of factorised codes, as in DAC (Kumar et al. 2023)."""


@dataclass(frozen=True)
class Option:
    """One training of a comparison: a name for its folder, what is other than in the first, in words."""

    name: str
    words: str
    settings: CodecSettings


def options(first: CodecSettings) -> Iterator[Option]:
    """The settings as given, then one change each."""
    yield Option("as-given", "as given", first)
    narrow = min(NARROW_DIM, first.width)
    changes = {
        "learnt": ("codebooks learnt by their loss" if first.ema else "codebooks follow running means",
                   {"ema": not first.ema, "cosine": False}),
        "random-start": ("codebooks begin at random", {"kmeans": False}),
        "no-expiry": ("dead codes stay", {"expire": 0.0}),
        "random-start-no-expiry": ("begin at random, dead codes stay", {"kmeans": False, "expire": 0.0}),
        "commitment-0": ("no commitment loss", {"commitment": 0.0}),
        "commitment-4": ("commitment × 4", {"commitment": 4 * first.commitment}),
        "all-codebooks": ("no quantiser dropout", {"quantizer_dropout": 0.0}),
        "factorised": (f"codes of {narrow} dimensions", {"codebook_dim": narrow, "cosine": False}),
        "cosine": (f"codes of {narrow} dimensions, cosine",
                   {"codebook_dim": narrow, "cosine": True, "ema": True, "quantiser": "residual"}),
        "grouped": ("grouped (product)", {"quantiser": "grouped", "cosine": False}),
        "hierarchical": ("hierarchical, 4, 2, 1, 1 … frames a code", {"quantiser": "hierarchical"}),
    }  # fmt: skip
    for name, (words, change) in changes.items():
        changed = replace(first, **change)
        if changed != first and not changed.problems():
            yield Option(name, words, changed)
