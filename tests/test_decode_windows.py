"""Pieces longer than the window, pieces of different length together, and steps in the form that graphs capture."""

import copy
from typing import Any

import pytest
import torch
from decode_fixtures import CPU, PLAN, generate, packed, piece, text_conditions
from torch import Tensor
from transformers import MusicgenConfig, MusicgenForConditionalGeneration

from adapters.decode.engine import Blend
from adapters.decode.generation import Generation, Request, WindowPlan
from adapters.decode.prompt_schedule import PromptSchedule
from adapters.decode.sampling import Knobs, Sampling
from adapters.decode.tape import Layout, Tape
from adapters.family.musicgen.engine import MusicgenEngine
from configs.errors import UserError

GREEDY = Sampling(3.0, 0.0)


@pytest.fixture(scope="module")
def model(mono_base) -> Any:
    return MusicgenForConditionalGeneration.from_pretrained(mono_base).eval()


@pytest.fixture(scope="module")
def engine(model: Any) -> MusicgenEngine:
    return packed(model)


def text(number: int, width: int = 12) -> Tensor:
    return torch.randn(4 + number, width, generator=torch.Generator().manual_seed(number))


def play(engine: MusicgenEngine, pieces: list[Request], sampling: Sampling, plan: WindowPlan = PLAN) -> list[Tensor]:
    return generate(engine, pieces, sampling, plan)


def test_windows_continue_from_the_last_part(engine: MusicgenEngine) -> None:
    plan = WindowPlan(30, 12, 50.0)
    long = play(engine, [piece(text(0), 70)], GREEDY, plan)[0]
    expected = play(engine, [piece(text(0), 30)], GREEDY)[0]
    while expected.shape[1] < 70:
        kept = expected[:, -12:]
        n_frames = min(30, 70 - expected.shape[1] + 12)
        more = play(engine, [piece(text(0), n_frames, 0, kept)], GREEDY)[0]
        expected = torch.cat([expected, more[:, 12:]], dim=1)
    torch.testing.assert_close(long, expected)


def test_a_prompt_longer_than_the_window_is_read_from_its_end(engine: MusicgenEngine) -> None:
    prompt = torch.randint(64, (4, 40), generator=torch.Generator().manual_seed(0))
    long = play(engine, [piece(text(0), 50, 0, prompt)], GREEDY, WindowPlan(30, 12, 50.0))[0]
    short = play(engine, [piece(text(0), 22, 0, prompt[:, -12:])], GREEDY, WindowPlan(30, 12, 50.0))[0]
    torch.testing.assert_close(long[:, :40], prompt)
    torch.testing.assert_close(long[:, 28:], short)


def test_pieces_do_not_depend_on_their_batch(engine: MusicgenEngine) -> None:
    """Own lengths, prompts, seeds and stops; windows slide under some of them."""
    prompt = torch.randint(64, (4, 9), generator=torch.Generator().manual_seed(0))
    pieces = [
        piece(text(0), 25, 1),
        piece(text(1), 64, 2),
        piece(text(2), 41, 3, prompt),
        piece(text(3), 5, 4),
    ]
    sampling, plan = Sampling(3.0, 1.0, 20), WindowPlan(30, 12, 50.0)
    together = play(engine, pieces, sampling, plan)
    for one, codes in zip(pieces, together, strict=True):
        assert codes.shape == (4, one.n_frames) and codes.min() >= 0
        torch.testing.assert_close(codes, play(engine, [one], sampling, plan)[0])


def test_beyond_the_training_window(mono_base) -> None:
    """The base says 16 positions; 60 frames need more, in transformers and here."""
    config: Any = MusicgenConfig.from_pretrained(mono_base)
    config.decoder.max_position_embeddings = 16
    model = MusicgenForConditionalGeneration.from_pretrained(mono_base, config=config).eval()
    states = text(0)
    ours = play(packed(model), [piece(states, 60)], Sampling(1.0, 0.0))[0]
    from decode_reference import play as slow

    expected = slow(model, states, 60, 0, guidance=1.0, temperature=[0.0] * 4, top_k=[0] * 4, top_p=[0.0] * 4)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0, 1.0, 20), Sampling(3.0, 0.8, 0, 0.7)])
def test_steps_in_captured_form_are_the_same(engine: MusicgenEngine, sampling: Sampling) -> None:
    knobs = Knobs(sampling, 4, 64, CPU)
    layout = Layout([torch.zeros(4, 0, dtype=torch.long)] * 2, [40, 33], [0, 0])
    plain, captured = (Tape(engine.pattern, 64, knobs, [1, 2], layout, CPU) for _ in range(2))
    with torch.no_grad():
        blend = Blend([engine.encode(text_conditions([text(0), text(1)]))])
        straight, steps = (engine.start(tape, knobs) for tape in (plain, captured))
        for each in (straight, steps):
            each.follow(blend)
        straight.advance(plain.n_columns)
        steps.advance(3)
        at = torch.tensor([steps.at])
        while int(at) < captured.n_columns - 1:
            steps.captured_step(at, 64)
    torch.testing.assert_close(captured.tokens, plain.tokens)


def test_guidance_may_come_and_go(engine: MusicgenEngine) -> None:
    """After a change the music is what it would be had the window been read with those rows from the start."""
    for first, then in ((1.0, 3.0), (3.0, 1.0)):
        generation = Generation(engine, [piece(text(0), 40)], Sampling(first, 0.0), PLAN)
        generation.advance(10)
        generation.set_sampling(Sampling(then, 0.0))
        kept = generation.codes()[0][:, : generation.frames_ready(0)].clone()
        generation.advance(40)
        got = generation.codes()[0]
        torch.testing.assert_close(got[:, : kept.shape[1]], kept)
        assert generation.done
        fresh = play(engine, [piece(text(0), 40, 0, got[:, :13])], Sampling(then, 0.0))[0]
        torch.testing.assert_close(got, fresh)


def test_a_prompt_schedule_changes_the_music(engine: MusicgenEngine) -> None:
    alone = [play(engine, [piece(text(n), 60)], GREEDY)[0] for n in (0, 1)]
    told = PromptSchedule((0.0, 0.6), (text(0), text(1)), fade_sec=0.2)
    story = play(engine, [Request(told, 60)], GREEDY)[0]
    same = (story == alone[0]).all(0).long().cumprod(0).sum()
    assert 15 <= same < 60, "the second text counts from about frame 25 on, and not before"
    assert (story != alone[1]).any()


def test_what_is_no_number_is_said(model: Any) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.decoder.model.decoder.layers[1].fc1.weight[0, 0] = float("nan")
    engine = packed(broken)
    with pytest.raises(UserError, match="not a number"):
        play(engine, [piece(text(0), 10)], GREEDY)
