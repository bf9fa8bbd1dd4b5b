"""Laws of shared runs, against a slow and obvious search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.judge.shared_runs import all_codebooks, exact, first_codebook, run_at_each, within_edits, without_repeats

frames = st.lists(st.integers(0, 2), max_size=9).map(lambda values: np.array(values, dtype=np.int64))


def slow_exact(ours: np.ndarray, theirs: np.ndarray) -> int:
    runs = [tuple(ours[a:b]) for a in range(len(ours)) for b in range(a + 1, len(ours) + 1)]
    other = {tuple(theirs[a:b]) for a in range(len(theirs)) for b in range(a + 1, len(theirs) + 1)}
    return max((len(run) for run in runs if run in other), default=0)


def distance(a: tuple, b: tuple) -> int:
    """Levenshtein's."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def slow_within(ours: np.ndarray, theirs: np.ndarray, edits: int) -> int:
    if not len(theirs):
        return 0
    other = {tuple(theirs[a:b]) for a in range(len(theirs) + 1) for b in range(a, len(theirs) + 1)}
    spans = [tuple(ours[a:b]) for a in range(len(ours)) for b in range(a + 1, len(ours) + 1)]
    return max((len(s) for s in spans if any(distance(s, o) <= edits for o in other)), default=0)


@given(frames, frames)
def test_exact_is_the_longest_common_run(ours, theirs):
    assert exact(ours, theirs) == slow_exact(ours, theirs) == exact(theirs, ours)


@settings(max_examples=60, deadline=None)
@given(frames, frames, st.integers(0, 3))
def test_within_edits_is_the_longest_run_at_that_distance(ours, theirs, edits):
    assert within_edits(ours, theirs, edits) == slow_within(ours, theirs, edits)


def test_a_planted_passage_is_found_and_grows():
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 512, 400), rng.integers(0, 512, 2000)
    assert exact(ours, theirs) <= 2
    for length in (20, 60, 150):
        ours[100 : 100 + length] = theirs[700 : 700 + length]
        assert length <= exact(ours, theirs) <= length + 2
    assert exact(ours, ours) == 400
    ours[160] = 600  # one wrong code in the middle halves the exact run, and an edit heals it
    assert exact(ours, theirs) <= 92 and within_edits(ours, theirs, 1) >= 150
    assert run_at_each(ours, theirs)[249] >= 89


def test_a_held_code_is_no_copy():
    held = np.zeros(300, dtype=np.int64)
    assert exact(without_repeats(held), without_repeats(held.copy())) == 1
    assert without_repeats(np.array([1, 1, 2, 2, 1])).tolist() == [1, 2, 1]
    assert without_repeats(np.array([], dtype=np.int64)).tolist() == []


def test_codebooks_as_one_number():
    codes = np.random.default_rng(1).integers(0, 2048, (4, 500)).astype(np.int16)
    assert (first_codebook(codes) == codes[0]).all()
    packed = all_codebooks(codes)
    assert len(np.unique(packed)) == len(np.unique(codes, axis=1).T)
    changed = codes.copy()
    changed[3, 7] += 1
    assert (all_codebooks(changed) != packed).nonzero()[0].tolist() == [7]
    assert (first_codebook(codes, 2) == first_codebook(changed, 2)).all()  # stereo: the first of either channel


@pytest.mark.parametrize("edits", [0, 2])
def test_nothing_has_no_runs(edits):
    none, some = np.array([], dtype=np.int64), np.array([1, 2], dtype=np.int64)
    assert within_edits(none, some, edits) == within_edits(some, none, edits) == exact(none, none) == 0
