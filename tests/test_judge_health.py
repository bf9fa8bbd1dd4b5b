"""Health of single pieces, on pieces made to be ill in one way each."""

import numpy as np
import pytest

from finetune.judge.health import check, loop_share, silent_share, spread

RATE, FRAMES = 16_000, 50.0


def noise(seconds: float, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(0).normal(size=(1, round(seconds * RATE)))).astype(np.float32)


def codes(n: int = 400) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 1000, (4, n)).astype(np.int16)


def test_a_healthy_piece():
    found = check(noise(4), codes(), RATE, FRAMES)
    assert not (found.is_silent or found.is_clipped or found.is_stuck)
    assert found.loudness_lufs == pytest.approx(-20, abs=6)


def test_silence_is_counted_in_seconds():
    audio = np.concatenate([noise(1), np.zeros((1, 3 * RATE), np.float32)], axis=1)
    assert silent_share(audio, RATE) == pytest.approx(0.75)
    assert (
        check(audio, codes(), RATE, FRAMES).is_silent
        and not check(audio[:, : 2 * RATE], codes(), RATE, FRAMES).is_silent
    )
    assert silent_share(np.zeros((1, 0), np.float32), RATE) == 1.0
    assert check(np.zeros((2, RATE), np.float32), codes(), RATE, FRAMES).loudness_lufs is None


def test_clipping():
    assert check(np.clip(noise(2, 0.5), -1, 1), codes(), RATE, FRAMES).is_clipped
    assert not check(np.clip(noise(2, 0.1), -1, 1), codes(), RATE, FRAMES).is_clipped


@pytest.mark.parametrize(("period", "stuck"), [(1, True), (7, True), (50, True), (100, False)])
def test_a_short_loop_is_stuck_and_bars_are_not(period, stuck):
    looped = codes()
    looped[:, 150:] = np.tile(codes()[:, :period], (1, 250))[:, :250]
    assert (loop_share(looped, FRAMES) > 0.8) is stuck


def test_loops_of_nothing():
    assert loop_share(np.zeros((1, 1), np.int16), FRAMES) == 0.0


def test_spread_is_zero_when_seeds_collapse_and_grows():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(6, 3))
    prompts = ["a", "a", "a", "b", "b", "c"]
    found = spread(rows, prompts)
    assert np.isnan(found[5]) and (found[:5] > 0).all()
    assert spread(2 * rows, prompts)[:5] == pytest.approx(2 * found[:5])
    rows[:3] = rows[0]
    assert spread(rows, prompts)[:3] == pytest.approx([0, 0, 0])
