"""Flattened and coarse-first patterns: against slow layouts, audiocraft's own tests' cases, and audiocraft itself."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.testing import assert_close

from adapters.pattern import IGNORE, Delays, Pattern
from adapters.pattern_coarse_first import CoarseFirst
from adapters.pattern_flattened import Flattened

CARD = 256
UNREAD = 999_999  # stands where nothing may be read; never a legal id

# Steps as lists of (frame, codebook), the empty start step included.
Steps = list[list[tuple[int, int]]]


def slow_delays(lags: tuple[int, ...], T: int) -> Steps:
    return [[]] + [[(at - lag, k) for k, lag in enumerate(lags) if at >= lag] for at in range(T + max(lags))]


def slow_flattened(inner: tuple[int, ...], lags: tuple[int, ...], T: int) -> Steps:
    """Time by time: what each inner step has to give, the empty first and then by frame."""
    steps: Steps = [[]]
    for time in range(T + max(lags)):
        given = []
        for place in range(max(inner) + 1):
            own = [k for k in range(len(inner)) if inner[k] == place]
            frame = time - (lags[own[0]] if own else 0)
            if frame >= 0:
                given.append([(frame, k) for k in own])
        steps += sorted(given)
    return steps


def slow_coarse_first(lags: tuple[int, ...], n_coarse: int, T: int) -> Steps:
    steps: Steps = [[]] + [[(t, k) for k in range(n_coarse)] for t in range(T)]
    for at in range(T + max(lags)):
        steps.append([(at - lag, n_coarse + k) for k, lag in enumerate(lags) if at >= lag])
    return steps


def slow_steps(pattern: Pattern, T: int) -> Steps:
    if isinstance(pattern, Flattened):
        return slow_flattened(pattern.inner, pattern.lags, T)
    if isinstance(pattern, CoarseFirst):
        return slow_coarse_first(pattern.lags, pattern.n_coarse, T)
    assert isinstance(pattern, Delays)
    return slow_delays(pattern.lags, T)


def fill(steps: Steps, codes: torch.Tensor, empty: int) -> torch.Tensor:
    """Cell by cell."""
    B, K, T = codes.shape
    sequence = torch.full((B, K, len(steps)), empty)
    for step, cells in enumerate(steps):
        for t, k in cells:
            if t < T:
                sequence[:, k, step] = codes[:, k, t]
    return sequence


def every_pattern(K: int) -> list[Pattern]:
    """The six of audiocraft's test, then its further kinds, and stereo."""
    late, far = (0,) + (1,) * (K - 1), (0,) + (5,) * (K - 1)
    patterns: list[Pattern] = [
        Delays((0,) * K),
        Delays(tuple(range(K))),
        Delays(late),
        Flattened.fully(K),
        Flattened(late),
        Flattened(late, far),
        Flattened(tuple(2 * (k // 2) for k in range(K))),  # inner steps that no codebook has
        Flattened(tuple(range(K)), tuple(3 * (k // 2) for k in range(K))),
    ]
    if K > 1:
        patterns += [CoarseFirst.of(K), CoarseFirst(tuple(range(K - 1)))]
    if K > 2:
        patterns += [CoarseFirst.of(K, channels=2), Flattened.coarse_apart(K, channels=2)]
    return patterns


def random_codes(B: int, K: int, T: int) -> torch.Tensor:
    return torch.randint(0, CARD, (B, K, T), generator=torch.Generator().manual_seed(100 * K + T))


@pytest.mark.parametrize("K", [1, 4, 32])
@pytest.mark.parametrize("T", [0, 1, 2, 16, 72])
def test_sequences_are_those_of_the_layouts_and_come_back(K: int, T: int) -> None:
    codes = random_codes(2, K, T)
    for pattern in every_pattern(K):
        steps = slow_steps(pattern, T)
        sequence = pattern.build(codes, CARD)
        assert_close(sequence, fill(steps, codes, CARD), rtol=0, atol=0, msg=str(pattern))
        assert pattern.n_codebooks == K and pattern.n_steps(T) == len(steps) and pattern.n_frames(len(steps)) == T
        unread = sequence.masked_fill(sequence == CARD, UNREAD)
        assert_close(pattern.revert(unread), codes, rtol=0, atol=0, msg=str(pattern))
        frames, at = pattern.frame_of_cell(len(steps)), pattern.step_of_frame(T)
        assert_close(frames.gather(1, at), torch.arange(T).expand(K, -1), rtol=0, atol=0)
        for wrong in {0, K - 1, K + 1}:
            with pytest.raises(ValueError, match="cannot arrange"):
                pattern.build(random_codes(2, wrong, T), CARD)


@pytest.mark.parametrize("K", [1, 4, 8])
def test_a_padded_batch_holds_every_code_once_and_reads_no_padding(K: int) -> None:
    n_frames = torch.tensor([12, 1, 7, 0])
    codes = random_codes(4, K, 12)
    for clip, length in zip(codes, n_frames.tolist(), strict=True):
        clip[:, length:] = UNREAD
    for pattern in every_pattern(K):
        inputs, labels = pattern.inputs_and_labels(codes, n_frames, CARD)
        steps = slow_steps(pattern, 12)
        for b, length in enumerate(n_frames.tolist()):
            mine = codes[b : b + 1, :, :length]
            assert_close(inputs[b : b + 1], fill(steps, mine, CARD)[..., :-1], rtol=0, atol=0, msg=str(pattern))
            assert_close(labels[b : b + 1], fill(steps, mine, IGNORE)[..., 1:], rtol=0, atol=0, msg=str(pattern))
        assert int((labels != IGNORE).sum()) == K * int(n_frames.sum())
        assert not (inputs == UNREAD).any() and not (labels == UNREAD).any()


@pytest.mark.parametrize("T", [0, 1, 16])
@pytest.mark.parametrize("inner", [(0, 1, 2), (0, 1, 1)])
@pytest.mark.parametrize("lags", [(0, 0, 0), (0, 5, 5)])
def test_step_counts_of_flattening_as_audiocraft_asserts_them(T: int, inner: tuple, lags: tuple) -> None:
    assert Flattened(inner, lags).n_steps(T) == T * (max(inner) + 1) + 1 + max(lags)


def test_the_tables_of_the_docstrings() -> None:
    letters = torch.arange(9).view(1, 3, 3)
    shown = {
        Flattened((0, 1, 2)): [".0..1..2..", "..3..4..5.", "...6..7..8"],
        Flattened((0, 1, 1)): [".0.1.2.", "..3.4.5", "..6.7.8"],
        Flattened((0, 1, 1), (0, 2, 2)): [".01.2....", "...3.4.5.", "...6.7.8."],
        CoarseFirst((0, 0)): [".012...", "....345", "....678"],
    }
    for pattern, rows in shown.items():
        (sequence,) = pattern.build(letters, 9)
        assert ["".join("." if cell == 9 else str(cell) for cell in row) for row in sequence.tolist()] == rows


def test_a_frame_is_whole_when_its_last_code_is_there() -> None:
    for pattern in every_pattern(4):
        if isinstance(pattern, CoarseFirst):
            continue
        last = pattern.step_of_frame(9).amax(0)
        for n_steps in range(pattern.n_steps(0), pattern.n_steps(9)):
            assert pattern.n_frames(n_steps) == int((last < n_steps).sum()), pattern
        assert pattern.n_frames(pattern.n_steps(0) - 1) < 0


def test_a_beginning_is_the_beginning_of_the_whole_but_not_with_coarse_first() -> None:
    codes = random_codes(1, 4, 9)
    for pattern in every_pattern(4):
        short, whole = pattern.build(codes[..., :5], CARD), pattern.build(codes, CARD)
        known = pattern.valid_cells(short.shape[2], torch.tensor([5]))
        same = torch.equal(short[known], whole[..., : short.shape[2]][known])
        assert same is not isinstance(pattern, CoarseFirst), pattern


def test_half_a_minute_at_50_frames_takes_the_steps_of_the_paper() -> None:
    """Copet et al. 2023, arXiv:2306.05284, table of patterns: 1500, 3000 and 6000, start step and lags aside."""
    assert [Delays(lags).n_steps(1500) - 1 - max(lags) for lags in ((0,) * 4, (0, 1, 1, 1), (0, 1, 2, 3))] == [1500] * 3
    assert CoarseFirst.of(4).n_steps(1500) - 1 == Flattened.coarse_apart(4).n_steps(1500) - 1 == 3000
    assert Flattened.fully(4).n_steps(1500) - 1 == 6000


def test_what_cannot_be_a_pattern_is_refused() -> None:
    assert Flattened((0, 1)) == Flattened((0, 1), (0, 0)) == Flattened.fully(2) and hash(Flattened.fully(2))
    for inner, lags in (((), ()), ((1, 0), ()), ((0, -1), ()), ((0, 1), (1, 0)), ((0, 1), (0,))):
        with pytest.raises(ValueError, match="never fall"):
            Flattened(inner, lags)
    with pytest.raises(ValueError, match="one lag"):
        Flattened((0, 1, 1), (0, 1, 2))
    for wrong in (((), 1), ((0, -1), 1), ((0,), 0)):
        with pytest.raises(ValueError, match="both kinds"):
            CoarseFirst(*wrong)
    with pytest.raises(ValueError, match="no whole sequence"):
        CoarseFirst((0,)).n_frames(4)
    for pattern in (Flattened((0, 1), (0, 4)), CoarseFirst((3,))):
        with pytest.raises(ValueError, match="too few"):
            pattern.revert(torch.zeros(1, 2, 2, dtype=torch.long))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """audiocraft's file of patterns, which needs torch alone."""
    uv, pip = shutil.which("uv"), shutil.which("pip")
    if uv is None and pip is None:
        pytest.skip("neither uv nor pip is installed")
    install = [uv, "pip", "install", "--python", sys.executable] if uv else [pip, "install"]
    folder = tmp_path_factory.mktemp("audiocraft")
    subprocess.run([*install, "-q", "--no-deps", "--target", folder, "audiocraft==1.3.0"], check=True)
    return load(folder / "audiocraft" / "modules" / "codebooks_patterns.py")


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("their_patterns", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.network
@pytest.mark.parametrize("K", [1, 4, 8])
@pytest.mark.parametrize("T", [0, 1, 16, 72])
def test_equals_audiocraft(K: int, T: int, theirs: ModuleType) -> None:
    codes = random_codes(2, K, T)
    for pattern in every_pattern(K):
        if isinstance(pattern, Flattened):
            provider = theirs.UnrolledPatternProvider(K, list(pattern.inner), list(pattern.lags))
        elif isinstance(pattern, CoarseFirst):
            if pattern.n_coarse > 1:
                continue  # theirs has one coarse codebook
            provider = theirs.CoarseFirstPattern(K, list(pattern.lags))
        else:
            assert isinstance(pattern, Delays)
            provider = theirs.DelayedPatternProvider(K, list(pattern.lags))
        layout = provider.get_pattern(T)
        assert pattern.n_steps(T) == len(layout.layout)
        if T == 0:
            continue  # theirs builds no sequence of nothing
        sequence, _, mask = layout.build_pattern_sequence(codes, CARD)
        assert_close(pattern.build(codes, CARD), sequence, rtol=0, atol=0, msg=str(pattern))
        holds_data = pattern.valid_cells(pattern.n_steps(T), torch.tensor([T]))[0]
        assert_close(holds_data, mask, rtol=0, atol=0, msg=str(pattern))
        assert_close(pattern.revert(sequence), layout.revert_pattern_sequence(sequence, CARD)[0], rtol=0, atol=0)
        logits = torch.randn(2, 5, K, sequence.shape[2] - 1)
        index = (pattern.step_of_frame(T) - 1).expand(2, 5, -1, -1)
        assert_close(logits.gather(3, index), layout.revert_pattern_logits(logits, torch.nan)[0], rtol=0, atol=0)
