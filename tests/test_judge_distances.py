"""Laws of the distances and of their intervals."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from finetune.judge.distances import (
    fad,
    fad_infinity,
    gaussian_kernel,
    kad,
    kad_closed,
    kad_moved,
    median_distance,
)
from finetune.judge.intervals import difference_estimate, draw_counts, mean_estimate, share_estimate


def normal(seed: int, n: int = 20, shift: float = 0.0, width: int = 4) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, width))
    rows[:, 0] += shift
    return rows


def true_squared_mmd(shift: float, sigma: float, width: int = 4) -> float:
    """Of two unit Gaussians `shift` apart: E k = (σ²/(σ²+2))^(D/2) exp(-d²/(2(σ²+2)))."""
    own = (sigma**2 / (sigma**2 + 2)) ** (width / 2)
    return 100 * 2 * own * (1 - np.exp(-(shift**2) / (2 * (sigma**2 + 2))))


def test_kad_is_the_plain_double_sum():
    x, y, sigma = normal(0, 5), normal(1, 4), 1.7
    k = lambda a, b: np.exp(-np.sum((a - b) ** 2) / (2 * sigma**2))  # noqa: E731
    xx = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert kad(x, y, sigma=sigma).value == pytest.approx(100 * (xx + yy - 2 * xy))


def test_kad_is_unbiased_even_on_small_sets():
    found = [kad(normal(2 * n, 6), normal(2 * n + 1, 6), sigma=2.0).value for n in range(300)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))
    far = [kad(normal(2 * n, 6, 1.0), normal(2 * n + 1, 6), sigma=2.0).value for n in range(300)]
    assert np.mean(far) == pytest.approx(true_squared_mmd(1.0, 2.0), abs=3 * np.std(far) / np.sqrt(300))


def test_kad_is_symmetric_and_grows():
    x, y = normal(0), normal(1)
    assert kad(x, y, sigma=2.0).value == pytest.approx(kad(y, x, sigma=2.0).value)
    found = [kad(x + np.array([shift, 0, 0, 0]), y, sigma=2.0).value for shift in (0.0, 1.0, 2.0, 4.0)]
    assert found == sorted(found) and found[-1] > 10


@pytest.mark.parametrize("shift", [0.7, 2.0])
def test_the_interval_of_kad_covers_the_truth(shift):
    truth = true_squared_mmd(shift, 2.0)
    found = [kad(normal(2 * n, 20, shift), normal(2 * n + 1, 20), sigma=2.0, seed=n) for n in range(150)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert covered >= 0.93
    assert shift < 1 or np.mean([one.is_above_zero for one in found]) > 0.85  # and yet it is narrow enough to tell


def test_the_interval_of_kad_seldom_excludes_zero_for_one_source():
    found = [kad(normal(2 * n, 16), normal(2 * n + 1, 16), sigma=2.0, seed=n) for n in range(150)]
    assert np.mean([one.is_above_zero for one in found]) <= 0.08


def test_moved_is_exactly_zero_for_the_same_set_and_grows():
    x = normal(0)
    same = kad_moved(x, x.copy())
    assert (same.value, same.low, same.high) == pytest.approx((0, 0, 0), abs=1e-12)
    assert kad_moved(x, normal(1)).value == pytest.approx(kad_moved(normal(1), x, sigma=median_distance(x)).value)
    found = [kad_moved(x, x + shift).value for shift in (0.0, 0.5, 1.0, 2.0)]
    assert found == sorted(found) and found[1] > 0


def test_moved_of_two_sources_covers_the_truth():
    truth = true_squared_mmd(1.0, 2.0)
    found = [kad_moved(normal(2 * n), normal(2 * n + 1, shift=1.0), sigma=2.0, seed=n) for n in range(150)]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.90


def test_closed_is_zero_at_the_base_and_a_hundred_at_the_reference():
    base, reference = normal(0, 40, shift=3.0), normal(1, 40)
    assert kad_closed(base, base.copy(), reference).value == pytest.approx(0)
    found = [kad_closed(base, base - np.array([step, 0, 0, 0]), reference) for step in (1.0, 2.0, 3.0)]
    assert found[0].value < found[1].value < found[2].value
    assert found[2].value == pytest.approx(100, abs=12) and found[0].low > 0
    assert kad_closed(base, base + np.array([2.0, 0, 0, 0]), reference).value < 0
    assert np.isnan(kad_closed(reference.copy(), base, reference).value)


def test_closed_covers_the_truth():
    covered = []
    for n in range(60):
        base, reference = normal(2 * n, 24, 2.0), normal(2 * n + 1, 24)
        found = kad_closed(base, base - np.array([1.0, 0, 0, 0]), reference, seed=n)
        sigma = median_distance(reference)
        truth = 100 * (1 - true_squared_mmd(1.0, sigma) / true_squared_mmd(2.0, sigma))
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) >= 0.88


def test_fad_is_the_textbook_formula():
    x, y = normal(0, 40), normal(1, 30, 1.0)
    cx, cy = np.cov(x.T), np.cov(y.T)
    plain = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(cx + cy - 2 * np.real(np.asarray(sqrtm(cx @ cy))))
    assert fad(x, y) == pytest.approx(plain)


def test_fad_is_zero_for_the_same_set_symmetric_and_grows():
    x, y = normal(0), normal(1)
    assert fad(x, x) == pytest.approx(0, abs=1e-9)
    assert fad(x, y) == pytest.approx(fad(y, x))
    found = [fad(x + shift, y) for shift in (0.0, 1.0, 2.0)]
    assert found == sorted(found)
    wide = normal(2, 6, width=50), normal(3, 7, width=50)  # fewer recordings than dimensions
    assert fad(*wide) > 0 and fad(wide[0], wide[0]) == pytest.approx(0, abs=1e-9)


def test_fad_infinity_takes_out_most_of_what_the_size_adds():
    y = normal(1, 4000, width=8)
    plain = [fad(normal(10 + n, 32, width=8), y) for n in range(20)]
    endless = [fad_infinity(normal(10 + n, 32, width=8), y, seed=n) or 0.0 for n in range(20)]
    assert abs(np.mean(endless)) < 0.35 * np.mean(plain)
    assert fad_infinity(normal(0, 4, width=8), y) is None
    grown = [fad_infinity(normal(10, 32, width=8, shift=shift), y) or 0.0 for shift in (0.0, 1.0, 2.0)]
    assert grown == sorted(grown) and grown[2] - grown[0] == pytest.approx(4.0, rel=0.5)  # the squared shift


def test_the_bandwidth_has_the_unit_of_the_space():
    x = normal(0)
    assert median_distance(3 * x) == pytest.approx(3 * median_distance(x))
    assert kad(3 * x, 3 * normal(1)).value == pytest.approx(kad(x, normal(1)).value)


def test_the_kernel_is_one_at_home():
    x = normal(0, 3)
    assert np.diag(gaussian_kernel(x, x, 2.0)) == pytest.approx([1, 1, 1])
    assert median_distance(np.zeros((3, 2))) == 1.0 == median_distance(np.zeros((1, 2)))


def test_the_interval_of_a_mean_covers_the_truth():
    for n, at_least in ((8, 0.90), (30, 0.92)):
        found = [mean_estimate(np.random.default_rng(seed).normal(2.0, 1.0, n), seed=seed) for seed in range(300)]
        assert at_least <= np.mean([one.low <= 2.0 <= one.high for one in found]) <= 0.985


def test_clips_of_one_track_are_drawn_together():
    rng = np.random.default_rng(0)

    def found(grouped: bool, seed: int):
        tracks = np.random.default_rng(seed).normal(size=8).repeat(5) + 0.1 * rng.normal(size=40)
        return mean_estimate(tracks, groups=np.arange(8).repeat(5).tolist() if grouped else None, seed=seed)

    ways = {way: [found(way, seed) for seed in range(200)] for way in (False, True)}
    covered = {way: np.mean([one.low <= 0 <= one.high for one in those]) for way, those in ways.items()}
    assert covered[True] >= 0.89 and covered[False] < 0.75
    counts, n = draw_counts(40, 0, np.arange(8).repeat(5).tolist())
    assert n == 8 and (counts.reshape(-1, 8, 5).std(axis=2) == 0).all()
    assert draw_counts(6, 0, ["a", "a", "b", "b", "c", "c"])[1] == 6  # three tracks cannot be resampled


def test_differences_and_shares():
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        found = difference_estimate(rng.normal(1.0, 1.0, 12), rng.normal(0.0, 1.0, 15), seed=seed)
        covered += found.low <= 1.0 <= found.high
    assert 180 <= covered <= 199
    sure = share_estimate([True] * 10)
    assert sure.value == 1.0 and 0.6 < sure.low < 0.8
    draws = [share_estimate((np.random.default_rng(s).random(25) < 0.7).tolist()) for s in range(300)]
    assert np.mean([one.low <= 0.7 <= one.high for one in draws]) >= 0.92
    assert mean_estimate([3.0]).low == -np.inf  # one thing tells nothing of how it could have come out
