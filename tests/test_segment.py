import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import UserError
from configs.prep import SegmentSettings
from data_prep.measure import TrackScan
from data_prep.segment import segments

FRAME, RATE_HZ = 640, 32_000


def track(levels_db: list[float], duration_sec: float | None = None, window_sec: float = 0.05) -> TrackScan:
    length = len(levels_db) * window_sec if duration_sec is None else duration_sec
    return TrackScan(length, 44_100, 2, "", window_sec, tuple(levels_db), 1.0, 0.0)


def music(*parts: tuple[float, bool]) -> TrackScan:
    """(seconds, loud?) one after the other."""
    return track([level for sec, loud in parts for level in [-20.0 if loud else -80.0] * round(sec / 0.05)])


def cut(scan: TrackScan, **settings: float) -> list[tuple[float, float]]:
    found = segments(scan, SegmentSettings(**settings), FRAME, RATE_HZ)
    return [(round(s.start_sec, 3), round(s.duration_sec, 3)) for s in found]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(65, True)], [(0, 30), (30, 30), (60, 5)]),  # a tail of the shortest length is a clip
        ([(63, True)], [(0, 30), (30, 16.5), (46.5, 16.5)]),  # a shorter one shares with the clip before
        ([(30, True)], [(0, 30)]),
        ([(4.9, True)], []),
        ([(5, True)], [(0, 5)]),
        ([(2, False), (10, True), (3, False), (8, True), (1, False)], [(2, 10), (15, 8)]),
        ([(0.5, False), (10, True), (0.9, False), (8, True), (0.9, False)], [(0, 20.3)]),  # short pauses are music
        ([(20, False)], []),
        ([(20, True), (2, False), (3, True)], [(0, 20)]),
        ([(2.05, False), (10.1, True), (3, False)], [(2.04, 10.12)]),  # widened to whole frames, not cut to them
    ],
)
def test_cuts(parts: list[tuple[float, bool]], expected: list[tuple[float, float]]) -> None:
    assert cut(music(*parts)) == expected


def test_a_tail_may_share_with_several_clips() -> None:
    """8 s at least, 10 at most, 21 s of music: no two clips can share 11 s, three can share 21."""
    assert cut(music((31, True)), max_sec=10, min_sec=7.5) == [(0, 7.76), (7.76, 7.76), (15.52, 7.74), (23.26, 7.74)]


def test_a_tail_that_cannot_be_shared_is_left() -> None:
    assert cut(music((25, True)), max_sec=10, min_sec=10) == [(0, 10), (10, 10)]


def test_level_decides() -> None:
    scan = track([-45.0] * 200)
    assert cut(scan) == [(0, 10)]
    assert cut(scan, silence_db=-40) == []


def test_impossible_lengths_are_refused() -> None:
    """No whole number of codec frames lies between them."""
    with pytest.raises(UserError, match="longer than the longest"):
        cut(music((60, True)), max_sec=0.01, min_sec=0.005)


@given(
    runs=st.lists(st.tuples(st.integers(1, 900), st.booleans()), min_size=1, max_size=12),
    window_sec=st.sampled_from([0.05, 2205 / 44_100, 551 / 11_025, 0.0497]),
    cut_off=st.floats(0, 0.049),
    max_sec=st.floats(0.5, 40),
    min_share=st.floats(0.01, 1),
    silence_sec=st.floats(0.01, 5),
    frame_samples=st.sampled_from([320, FRAME, 6400]),
)
def test_all_music_is_kept_but_what_is_stated(
    runs: list[tuple[int, bool]],
    window_sec: float,
    cut_off: float,
    max_sec: float,
    min_share: float,
    silence_sec: float,
    frame_samples: int,
) -> None:
    per_sec = RATE_HZ / frame_samples
    levels = np.concatenate([np.full(n, -20.0 if loud else -90.0) for n, loud in runs])
    duration = max(0.001, len(levels) * window_sec - cut_off * window_sec)
    settings = SegmentSettings(max_sec=max_sec, min_sec=max(0.03, max_sec * min_share), silence_sec=silence_sec)
    try:
        found = segments(track(levels.tolist(), duration, window_sec), settings, frame_samples, RATE_HZ)
    except UserError:
        assert np.floor(settings.max_sec * per_sec) < np.ceil(settings.min_sec * per_sec)
        return
    kept = np.zeros(int(np.ceil(duration * per_sec)) + 1, int)  # per codec frame
    for clip in found:
        start, length = clip.start_sec * per_sec, clip.duration_sec * per_sec
        assert abs(start - round(start)) < 1e-6 and abs(length - round(length)) < 1e-6
        assert settings.min_sec - 1e-6 <= clip.duration_sec <= settings.max_sec + 1e-6
        assert clip.start_sec >= 0 and clip.start_sec + clip.duration_sec <= duration + 1e-6
        kept[round(start) : round(start) + round(length)] += 1
    assert kept.max() <= 1, "clips overlap"
    assert [c.start_sec for c in found] == sorted(c.start_sec for c in found)
    _check_losses(kept, levels, window_sec, duration, settings, per_sec)


def _check_losses(
    kept: np.ndarray, levels: np.ndarray, window_sec: float, duration: float, settings: SegmentSettings, per_sec: float
) -> None:
    """Every loud frame left out lies in a stretch shorter than the shortest clip (plus a frame at each end)."""
    whole = int(np.floor(duration * per_sec + 1e-6))
    middle = ((np.arange(whole) + 0.5) / per_sec / window_sec).astype(int).clip(max=len(levels) - 1)
    lost = (kept[:whole] == 0) & (levels[middle] > settings.silence_db)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], lost.astype(int), [0]])))
    for start, end in edges.reshape(-1, 2):
        assert (end - start) / per_sec < settings.min_sec + 2 / per_sec
