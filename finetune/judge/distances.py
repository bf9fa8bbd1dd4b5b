"""How far apart two sets of recordings are, from their embeddings: KAD, FAD, and FAD for endless sets.

* KAD (Chung et al. 2025, arXiv:2502.15602): the squared maximum mean discrepancy with the Gaussian kernel
  k(x, y) = exp(-|x - y|² / 2σ²), σ the median distance within the reference set, times 100 as the authors' toolkit
  prints it. The estimate is the unbiased one (Gretton et al. 2012, JMLR 13, lemma 6): zero on average for two sets
  from one source, however small, and so below zero half of the time.
* Two sets played from the same seeds are pairs. Their distance is the paired U-statistic (the same paper, equation 4),
  which leaves out each pair's own closeness: exactly zero when nothing changed.
* FAD (Kilgour et al. 2019, arXiv:1812.08466): the Fréchet distance of two Gaussians. It depends on the number of
  recordings; FAD∞ (Gui et al. 2023, arXiv:2311.01616, after Chong and Forsyth 2020, arXiv:1911.07023) follows it
  along 1/N to where N is endless. With fewer recordings than dimensions it is a rough guide, no more.

Rows are recordings. Nothing here knows what an embedding hears; `finetune.judge.trust` asks whether it hears enough.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from finetune.judge.intervals import Estimate, draw_counts, interval

KAD_SCALE = 100.0
FAD_SIZES, FAD_DRAWS, FAD_MIN = 8, 12, 8
"""FAD∞: so many sizes between half of the set and all of it, each measured so often, from so many recordings on."""

Rows = Float[np.ndarray, "N D"]


def median_distance(reference: Rows) -> float:
    """σ of KAD: the median distance between two recordings of the reference; 1 where that is zero."""
    from scipy.spatial.distance import pdist

    found = float(np.median(pdist(reference))) if len(reference) > 1 else 0.0
    return found if found > 0 else 1.0


def gaussian_kernel(x: Rows, y: Float[np.ndarray, "M D"], sigma: float) -> Float[np.ndarray, "N M"]:
    """exp(-|x - y|² / 2σ²) of every pair."""
    from scipy.spatial.distance import cdist

    return np.exp(cdist(x, y, "sqeuclidean") / (-2 * sigma**2))


def kad(
    x: Rows,
    y: Float[np.ndarray, "M D"],
    *,
    sigma: float | None = None,
    x_groups: Sequence[Any] | None = None,
    y_groups: Sequence[Any] | None = None,
    seed: int = 0,
) -> Estimate:
    """KAD of two sets; `sigma` defaults to the median distance within `y`, the reference."""
    sigma = median_distance(y) if sigma is None else sigma
    (cx, nx), (cy, ny) = draw_counts(len(x), seed, x_groups), draw_counts(len(y), seed + 1, y_groups)
    kxx, kyy, kxy = (gaussian_kernel(a, b, sigma) for a, b in ((x, x), (y, y), (x, y)))
    one = np.ones((1, len(x))), np.ones((1, len(y)))
    value = _squared_mmd(kxx, kyy, kxy, *one)
    return interval(float(value[0]), _squared_mmd(kxx, kyy, kxy, cx, cy), min(nx, ny)).scaled(KAD_SCALE)


def kad_closed(
    base: Rows,
    adapted: Rows,
    reference: Float[np.ndarray, "M D"],
    *,
    groups: Sequence[Any] | None = None,
    seed: int = 0,
) -> Estimate:
    """How much of the way from the base to the reference the adapter has gone, in percent of KAD.

    0: as far away as the base. 100: as near as more of the reference. Below zero: farther than the base. Row i of base
    and of adapted were played from one prompt and one seed, and are drawn together; `groups` are the reference's songs.
    NaN where the base is as near as can be already.
    """
    before, after = _both(base, adapted, reference, groups, seed)
    if before.value <= 0:
        return Estimate(float("nan"), -np.inf, np.inf, before.n)
    ratio = np.divide(after.draws, before.draws, out=np.full(len(before.draws), np.nan), where=before.draws > 0)
    return interval(1 - after.value / before.value, 1 - ratio, before.n).scaled(100.0)


class _Drawn(NamedTuple):
    value: float
    draws: np.ndarray
    n: int


def _both(
    base: Rows, adapted: Rows, reference: Float[np.ndarray, "M D"], groups: Sequence[Any] | None, seed: int
) -> tuple[_Drawn, _Drawn]:
    """MMD² of base and of adapted to the reference, on the same resamples."""
    sigma = median_distance(reference)
    (cx, nx), (cy, ny) = draw_counts(len(base), seed), draw_counts(len(reference), seed + 1, groups)
    kyy = gaussian_kernel(reference, reference, sigma)
    one = np.ones((1, len(base))), np.ones((1, len(reference)))
    found = []
    for rows in (base, adapted):
        kxx, kxy = gaussian_kernel(rows, rows, sigma), gaussian_kernel(rows, reference, sigma)
        value = float(_squared_mmd(kxx, kyy, kxy, *one)[0])
        found.append(_Drawn(value, _squared_mmd(kxx, kyy, kxy, cx, cy), min(nx, ny)))
    return found[0], found[1]


def kad_moved(base: Rows, adapted: Rows, *, sigma: float | None = None, seed: int = 0) -> Estimate:
    """KAD of two sets played from the same prompts and seeds, row by row: exactly zero when nothing changed."""
    sigma = median_distance(base) if sigma is None else sigma
    kernel = gaussian_kernel(base, base, sigma) + gaussian_kernel(adapted, adapted, sigma)
    cross = gaussian_kernel(base, adapted, sigma)
    pairs = kernel - cross - cross.T
    counts, n = draw_counts(len(base), seed)
    value = _mean_of_pairs(pairs, np.ones((1, len(base))))
    return interval(float(value[0]), _mean_of_pairs(pairs, counts), n).scaled(KAD_SCALE)


def fad(x: Rows, y: Float[np.ndarray, "M D"]) -> float:
    """The Fréchet distance of Gaussians with the means and covariances of two sets.

    The trace of the root of Σx Σy is the nuclear norm of A Bᵀ, where Σx = AᵀA and Σy = BᵀB: no root of a large matrix
    is taken, and sets smaller than the embedding's width are no special case.
    """
    return _frechet(_moments(x), _moments(y))


def fad_infinity(x: Rows, y: Float[np.ndarray, "M D"], *, seed: int = 0) -> float | None:
    """FAD of endlessly many recordings x against the set y: the line through FAD over 1/N, at zero. None for few x."""
    if len(x) < FAD_MIN:
        return None
    rng = np.random.default_rng(seed)
    sizes = np.unique(np.linspace(len(x) // 2, len(x), FAD_SIZES).astype(int))
    theirs = _moments(y)
    found = [
        np.mean(
            [
                _frechet(_moments(x[rng.permutation(len(x))[:size]]), theirs)
                for _ in range(FAD_DRAWS if size < len(x) else 1)
            ]
        )
        for size in sizes
    ]
    return float(np.polyfit(1 / sizes, found, 1)[1])


Moments = tuple[Float[np.ndarray, " D"], Float[np.ndarray, "_ D"]]


def _moments(rows: Float[np.ndarray, "_ D"]) -> Moments:
    """The mean, and A with AᵀA = the covariance: of a large set the triangle of a QR decomposition, which is small."""
    mean = rows.mean(axis=0)
    root = (rows - mean) / np.sqrt(max(1, len(rows) - 1))
    return mean, np.asarray(np.linalg.qr(root, mode="r")) if len(root) > root.shape[1] else root


def _frechet(ours: Moments, theirs: Moments) -> float:
    (mean_a, a), (mean_b, b) = ours, theirs
    shared = float(np.linalg.svd(a @ b.T, compute_uv=False).sum())
    apart = float(np.square(mean_a - mean_b).sum())
    return apart + float(np.square(a).sum()) + float(np.square(b).sum()) - 2 * shared


def _squared_mmd(
    kxx: np.ndarray, kyy: np.ndarray, kxy: np.ndarray, cx: np.ndarray, cy: np.ndarray
) -> Float[np.ndarray, " R"]:
    """Unbiased MMD² of each resample; a row that was drawn twice is no pair with itself."""
    totals = cx.sum(axis=1) * cy.sum(axis=1)
    cross = ((cx @ kxy) * cy).sum(axis=1) / np.maximum(totals, 1)
    return _mean_of_pairs(kxx, cx) + _mean_of_pairs(kyy, cy) - 2 * cross


def _mean_of_pairs(kernel: np.ndarray, counts: np.ndarray) -> Float[np.ndarray, " R"]:
    """The mean over pairs of different rows; NaN for a resample that has none."""
    squares = np.square(counts)
    total = counts.sum(axis=1) ** 2 - squares.sum(axis=1)
    found = ((counts @ kernel) * counts).sum(axis=1) - squares @ np.diag(kernel)
    return np.divide(found, total, out=np.full(len(counts), np.nan), where=total > 0)
