"""Bootstrap intervals: how far a number could have come out otherwise, with other seeds, prompts or recordings.

Resampling is by counts: a resample is how often each row is drawn. Rows that belong together (clips of one track) are
drawn together. The interval is the expanded percentile interval (Hesterberg 2015, "What Teachers Should Know About the
Bootstrap", The American Statistician 69:4, section 3.4): plain percentiles are too narrow for the ten or twenty rows
that there are here, by about the factor between a normal and a t distribution.

What it does not know: whether the rows stand for all the music in the world. Two held-out tracks stay two tracks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

LEVEL = 0.95
RESAMPLES = 1000
MIN_GROUPS = 5
"""With fewer groups than this, rows are drawn by themselves: three tracks have only ten different resamples."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval. `n` is how many independent things it rests on."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"

    @property
    def is_above_zero(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.low > 0

    def scaled(self, factor: float) -> "Estimate":
        """The same in another unit."""
        ends = sorted((self.low * factor, self.high * factor))
        return Estimate(self.value * factor, ends[0], ends[1], self.n)


def draw_counts(
    n_rows: int, seed: int, groups: Sequence[Any] | None = None, n_resamples: int = RESAMPLES
) -> tuple[Int[np.ndarray, "R N"], int]:
    """How often each row is drawn in each resample, and how many independent units there are."""
    rng = np.random.default_rng(seed)
    names = np.arange(n_rows) if groups is None else np.unique([str(group) for group in groups], return_inverse=True)[1]
    n_groups = int(names.max()) + 1 if n_rows else 0
    if n_groups < MIN_GROUPS:
        names, n_groups = np.arange(n_rows), n_rows
    if n_groups == 0:
        return np.zeros((n_resamples, 0), dtype=np.int64), 0
    counts = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples)  # [R, groups]
    return counts[:, names].astype(np.int64), n_groups


def interval(value: float, draws: Float[np.ndarray, " R"], n: int) -> Estimate:
    """The expanded percentile interval of a statistic from its values on resamples of `n` units."""
    from scipy import stats

    draws = draws[np.isfinite(draws)]
    if n < 2 or not len(draws):
        return Estimate(value, -np.inf, np.inf, n)
    tail = (1 - LEVEL) / 2
    expanded = float(stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf(tail, n - 1)))
    low, high = np.quantile(draws, [expanded, 1 - expanded])
    return Estimate(value, min(float(low), value), max(float(high), value), n)


def mean_estimate(
    values: Float[np.ndarray, " N"] | Sequence[float], *, groups: Sequence[Any] | None = None, seed: int = 0
) -> Estimate:
    """The mean of the values."""
    rows = np.asarray(values, dtype=np.float64)
    counts, n = draw_counts(len(rows), seed, groups)
    if not len(rows):
        return Estimate(float("nan"), -np.inf, np.inf, 0)
    totals = counts.sum(axis=1)
    return interval(float(rows.mean()), counts @ rows / np.maximum(totals, 1), n)


def difference_estimate(
    left: Float[np.ndarray, " N"] | Sequence[float],
    right: Float[np.ndarray, " M"] | Sequence[float],
    *,
    left_groups: Sequence[Any] | None = None,
    right_groups: Sequence[Any] | None = None,
    seed: int = 0,
) -> Estimate:
    """Mean of the left minus mean of the right, two samples that have nothing to do with each other."""
    a, b = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if not len(a) or not len(b):
        return Estimate(float("nan"), -np.inf, np.inf, 0)
    (ca, na), (cb, nb) = draw_counts(len(a), seed, left_groups), draw_counts(len(b), seed + 1, right_groups)
    draws = ca @ a / np.maximum(ca.sum(axis=1), 1) - cb @ b / np.maximum(cb.sum(axis=1), 1)
    return interval(float(a.mean() - b.mean()), draws, min(na, nb))


def share_estimate(hits: Sequence[bool]) -> Estimate:
    """A share of yes and no, with Wilson's interval (1927): the bootstrap of ten out of ten is no interval at all."""
    from scipy import stats

    if not len(hits):
        return Estimate(float("nan"), 0.0, 1.0, 0)
    found = stats.binomtest(int(sum(hits)), len(hits)).proportion_ci(LEVEL, method="wilson")
    return Estimate(sum(hits) / len(hits), float(found.low), float(found.high), len(hits))
