"""Pieces longer than the window, pieces of different length together, and steps in the form that graphs capture."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import MusicgenConfig, MusicgenForConditionalGeneration

from adapters.decode.conditions import Hearing, hear_part
from adapters.decode.performance import Frame, Performance, Piece
from adapters.decode.sampling import Knobs, Sampling
from adapters.decode.story import Story
from adapters.decode.weights import DecoderWeights, Packing, pack
from adapters.decode.window import Score, Window
from configs.errors import UserError

CPU = torch.device("cpu")
GREEDY = Sampling(3.0, 0.0)


@pytest.fixture(scope="module")
def model(mono_base) -> Any:
    return MusicgenForConditionalGeneration.from_pretrained(mono_base).eval()


@pytest.fixture(scope="module")
def weights(model: Any) -> DecoderWeights:
    return pack(model, Packing("plain", CPU, torch.float32))


def text(number: int, width: int = 12) -> Tensor:
    return torch.randn(4 + number, width, generator=torch.Generator().manual_seed(number))


def play(weights: DecoderWeights, pieces: list[Piece], sampling: Sampling, frame: Frame | None = None) -> list[Tensor]:
    performance = Performance(weights, pieces, sampling, frame or Frame())
    while not performance.done:
        performance.play(7)
    return performance.codes()


def test_windows_continue_from_the_last_part(weights: DecoderWeights) -> None:
    frame = Frame(window=30, overlap=12)
    long = play(weights, [Piece(Story.of(text(0)), 70)], GREEDY, frame)[0]
    expected = play(weights, [Piece(Story.of(text(0)), 30)], GREEDY)[0]
    while expected.shape[1] < 70:
        kept = expected[:, -12:]
        n_frames = min(30, 70 - expected.shape[1] + 12)
        more = play(weights, [Piece(Story.of(text(0)), n_frames, 0, kept)], GREEDY)[0]
        expected = torch.cat([expected, more[:, 12:]], dim=1)
    torch.testing.assert_close(long, expected)


def test_a_prompt_longer_than_the_window_is_heard_from_its_end(weights: DecoderWeights) -> None:
    prompt = torch.randint(64, (4, 40), generator=torch.Generator().manual_seed(0))
    long = play(weights, [Piece(Story.of(text(0)), 50, 0, prompt)], GREEDY, Frame(30, 12))[0]
    short = play(weights, [Piece(Story.of(text(0)), 22, 0, prompt[:, -12:])], GREEDY, Frame(30, 12))[0]
    torch.testing.assert_close(long[:, :40], prompt)
    torch.testing.assert_close(long[:, 28:], short)


def test_pieces_do_not_depend_on_their_batch(weights: DecoderWeights) -> None:
    """Own lengths, prompts, seeds and stops; windows slide under some of them."""
    prompt = torch.randint(64, (4, 9), generator=torch.Generator().manual_seed(0))
    pieces = [
        Piece(Story.of(text(0)), 25, 1),
        Piece(Story.of(text(1)), 64, 2),
        Piece(Story.of(text(2)), 41, 3, prompt),
        Piece(Story.of(text(3)), 5, 4),
    ]
    sampling, frame = Sampling(3.0, 1.0, 20), Frame(30, 12)
    together = play(weights, pieces, sampling, frame)
    for piece, codes in zip(pieces, together, strict=True):
        assert codes.shape == (4, piece.n_frames) and codes.min() >= 0
        torch.testing.assert_close(codes, play(weights, [piece], sampling, frame)[0])


def test_beyond_the_training_window(mono_base) -> None:
    """The base says 16 positions; 60 frames need more, in transformers and here."""
    config: Any = MusicgenConfig.from_pretrained(mono_base)
    config.decoder.max_position_embeddings = 16
    model = MusicgenForConditionalGeneration.from_pretrained(mono_base, config=config).eval()
    states = text(0)
    ours = play(pack(model, Packing("plain", CPU, torch.float32)), [Piece(Story.of(states), 60)], Sampling(1.0, 0.0))[0]
    from decode_reference import play as slow

    expected = slow(model, states, 60, 0, guidance=1.0, temperature=[0.0] * 4, top_k=[0] * 4, top_p=[0.0] * 4)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0, 1.0, 20), Sampling(3.0, 0.8, 0, 0.7)])
def test_steps_in_captured_form_are_the_same(weights: DecoderWeights, sampling: Sampling) -> None:
    knobs = Knobs(sampling, 4, 64, CPU)
    hearing = Hearing([hear_part(weights, [text(0), text(1)])])
    score = Score([torch.zeros(4, 0, dtype=torch.long)] * 2, [40, 33], [0, 0])
    plain, fixed = (Window(weights, hearing, knobs, [1, 2], score) for _ in range(2))
    with torch.no_grad():
        plain.play(plain.n_steps)
        fixed.play(3)
        at = torch.tensor([fixed.at])
        while int(at) < fixed.n_steps - 1:
            fixed.fixed_step(at, 64)
    torch.testing.assert_close(fixed.grid, plain.grid)


def test_guidance_may_come_and_go(weights: DecoderWeights) -> None:
    """After a change the music is what it would be had the window been heard with those rows from the start."""
    for first, then in ((1.0, 3.0), (3.0, 1.0)):
        performance = Performance(weights, [Piece(Story.of(text(0)), 40)], Sampling(first, 0.0))
        performance.play(10)
        performance.turn(Sampling(then, 0.0))
        kept = performance.codes()[0][:, : performance.frames_ready(0)].clone()
        performance.play(40)
        got = performance.codes()[0]
        torch.testing.assert_close(got[:, : kept.shape[1]], kept)
        grid = performance.window.grid if performance.window else None
        assert grid is not None and performance.done
        fresh = play(weights, [Piece(Story.of(text(0)), 40, 0, got[:, :13])], Sampling(then, 0.0))[0]
        torch.testing.assert_close(got, fresh)


def test_a_story_changes_what_is_heard(weights: DecoderWeights) -> None:
    alone = [play(weights, [Piece(Story.of(text(n)), 60)], GREEDY)[0] for n in (0, 1)]
    told = Story((0.0, 0.6), (text(0), text(1)), fade_sec=0.2)
    story = play(weights, [Piece(told, 60)], GREEDY)[0]
    same = (story == alone[0]).all(0).long().cumprod(0).sum()
    assert 15 <= same < 60, "the second text is heard from about frame 25 on, and not before"
    assert (story != alone[1]).any()


def test_what_is_no_number_is_said(model: Any) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.decoder.model.decoder.layers[1].fc1.weight[0, 0] = float("nan")
    weights = pack(broken, Packing("plain", CPU, torch.float32))
    with pytest.raises(UserError, match="not a number"):
        play(weights, [Piece(Story.of(text(0)), 10)], GREEDY)
