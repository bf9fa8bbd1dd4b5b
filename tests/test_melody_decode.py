"""The melody engine: transformers' own greedy tokens, and what the slow engine plays when conditions change."""

from typing import Any

import pytest
import torch
from torch import Tensor

from adapters.conditions import batch_conditions
from adapters.decode.engine import Engine, Packing
from adapters.decode.generation import Generation, Request, WindowPlan
from adapters.decode.prompt_schedule import PromptSchedule
from adapters.decode.sampling import Sampling
from adapters.decode.whole_sequence import WholeSequence
from adapters.family.load import load_lm
from adapters.family.port import family_of
from data_prep.base_files import BaseFiles
from tests.melody_fixtures import a_melody, melody_base, states_of, token_ids, whole_model

CPU = torch.device("cpu")
FRAMES = 14
PLAN = WindowPlan(1500, 600, 50.0)


@pytest.fixture(scope="module", params=[1, 2], ids=["mono", "stereo"])
def base(request, tmp_path_factory) -> BaseFiles:
    return melody_base(tmp_path_factory.mktemp("melody"), request.param)


@pytest.fixture(scope="module")
def model(base: BaseFiles) -> Any:
    return whole_model(base)


@pytest.fixture(scope="module")
def engine(base: BaseFiles) -> Engine:
    return family_of(base).pack(load_lm(base), Packing("plain", CPU, torch.float32))


def play(engine: Engine, requests: list[Request], guidance: float = 3.0, plan: WindowPlan = PLAN) -> list[Tensor]:
    generation = Generation(engine, requests, Sampling(guidance, 0.0), plan)
    while not generation.done:
        generation.advance(5)
    return generation.codes()


def generated(model: Any, base: BaseFiles, ids: Tensor, melody: Tensor | None, guidance: float) -> Tensor:
    """Transformers' greedy tokens [B, K, T]: what it hands to its codec."""
    spec = base.spec
    kept = {}

    def decode(codes: Tensor, **_: Any) -> Any:
        kept.setdefault("codes", []).append(codes[0])
        return type("Out", (), {"audio_values": torch.zeros(codes.shape[1], 1, 1)})

    original, model.audio_encoder.decode = model.audio_encoder.decode, decode
    try:
        model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            input_features=melody,
            do_sample=False,
            guidance_scale=guidance,
            max_new_tokens=FRAMES + spec.largest_lag,
        )
    finally:
        model.audio_encoder.decode = original
    if spec.channels == 1:
        return kept["codes"][0]
    return torch.stack(kept["codes"], dim=2).flatten(1, 2)  # left 0, right 0, left 1, …


@pytest.mark.parametrize("guidance", [3.0, 1.0])
@pytest.mark.parametrize("melody", [True, False])
@pytest.mark.parametrize("batch", [1, 4])
def test_greedy_tokens_are_transformers(
    base: BaseFiles, model: Any, engine: Engine, batch: int, melody: bool, guidance: float
) -> None:
    ids = torch.stack([token_ids(6, seed) for seed in range(batch)])
    melodies = torch.stack([a_melody(235, seed) for seed in range(batch)]) if melody else None
    expected = generated(model, base, ids, melodies, guidance)
    requests = []
    for row in range(batch):
        also = {} if melodies is None else {"melody": melodies[row]}
        requests.append(Request(PromptSchedule.of(states_of(model, ids[row])), FRAMES, also=also))
    found = play(engine, requests, guidance)
    assert len(set(expected.flatten().tolist())) > 5
    torch.testing.assert_close(torch.stack(found), expected[:, :, :FRAMES])


def requests_of(model: Any) -> list[Request]:
    """Pieces of different lengths and conditions, one of them with a text that changes."""
    texts = [states_of(model, token_ids(6, seed)) for seed in range(3)]
    changing = PromptSchedule([0.0, 0.2], [texts[0], texts[1]], 0.1)
    return [
        Request(changing, 40, 1, also={"melody": a_melody(300, 1)}),
        Request(PromptSchedule.of(texts[2]), 22, 2, also={"melody": a_melody(40, 2)}),
        Request(PromptSchedule.of(texts[1]), 31, 3),
    ]


def test_windows_and_changing_texts_are_as_without_a_cache(base: BaseFiles, model: Any, engine: Engine) -> None:
    """Steady texts: equal to the slow engine. (A cross-fade mixes entries here and logits there.)"""
    plan = WindowPlan(16, 6, 50.0)
    requests = [
        Request(PromptSchedule.of(r.prompts.texts[0]), r.n_frames, r.seed, also=r.also) for r in requests_of(model)
    ]
    slow = WholeSequence(load_lm(base))
    expected, found = play(slow, requests, plan=plan), play(engine, requests, plan=plan)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    alone = [play(engine, [request], plan=plan)[0] for request in requests]
    torch.testing.assert_close(found[0], alone[0])


def test_a_text_that_changes_is_followed_from_then_on(model: Any, engine: Engine) -> None:
    texts = [states_of(model, token_ids(6, seed)) for seed in range(2)]
    melody = {"melody": a_melody(235, 1)}
    plain = play(engine, [Request(PromptSchedule.of(texts[0]), 40, also=melody)])[0]
    schedule = PromptSchedule([0.0, 0.4], list(texts), 0.0)
    changed = play(engine, [Request(schedule, 40, also=melody)])[0]
    torch.testing.assert_close(changed[:, :18], plain[:, :18])
    assert not torch.equal(changed, plain)


def test_a_longer_text_in_the_middle_of_a_window(base: BaseFiles, model: Any, engine: Engine) -> None:
    """Everything is read again behind it: equal to the slow engine, where no text is mixed."""
    schedule = PromptSchedule([0.0, 0.2], [states_of(model, token_ids(3, 0)), states_of(model, token_ids(9, 1))], 0.0)
    request = Request(schedule, 30, also={"melody": a_melody(235, 1)})
    expected, found = play(WholeSequence(load_lm(base)), [request])[0], play(engine, [request])[0]
    torch.testing.assert_close(found, expected)


def test_guidance_may_come_and_go(model: Any, engine: Engine) -> None:
    request = Request(PromptSchedule.of(states_of(model, token_ids(6))), 30, also={"melody": a_melody(235, 1)})
    generation = Generation(engine, [request], Sampling(3.0, 0.0), PLAN)
    generation.advance(12)
    generation.set_sampling(Sampling(1.0, 0.0))
    while not generation.done:
        generation.advance(12)
    assert int(generation.codes()[0].min()) >= 0


def test_a_borrowed_model_plays_the_same(base: BaseFiles, model: Any, engine: Engine) -> None:
    borrowed = family_of(base).borrow(load_lm(base))
    requests = requests_of(model)
    for one, other in zip(play(borrowed, requests), play(engine, requests), strict=True):
        torch.testing.assert_close(one, other)


def test_log_likelihoods_are_the_lms(base: BaseFiles, model: Any, engine: Engine) -> None:
    lm = load_lm(base)
    codes = torch.randint(0, base.spec.card, (base.spec.n_codebooks, 9), generator=torch.Generator().manual_seed(1))
    row = {"text": states_of(model, token_ids(6)), "melody": a_melody(235)}
    conditions = batch_conditions([row], base.spec)
    expected = WholeSequence(lm).log_likelihoods(codes, conditions)
    torch.testing.assert_close(engine.log_likelihoods(codes, conditions), expected, rtol=1e-4, atol=1e-4)
