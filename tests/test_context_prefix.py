"""A condition as a prefix: other rows stay the base, each entry has its place, and both engines play the same."""

from typing import Any

import pytest
import torch
from fake_card.card import FakeCard, needs_known_torch
from test_added_conditions import (
    CONTEXT,
    CPU,
    check_changing_scales,
    conditions_of,
    info_of,
    inputs_of,
    played,
    requests_of,
    with_context,
)
from torch.testing import assert_close

from adapters.added_conditions import attach as added_conditions
from adapters.added_conditions.prefix import Prefix, first_steps, visible
from adapters.conditions import Condition, Conditions, batch_conditions
from adapters.decode.engine import Packing
from adapters.decode.generation import Generation, WindowPlan
from adapters.decode.sampling import Sampling
from adapters.decode.whole_sequence import WholeSequence
from adapters.family.load import load_lm
from adapters.family.musicgen import kv_cache
from adapters.family.musicgen.engine import MusicgenEngine
from adapters.pattern import Delays
from adapters.pattern_flattened import Flattened
from configs.train import ContextSettings
from data_prep.base_files import resolve_base
from data_prep.move import Move
from data_prep.pattern_choice import PatternChoice

STRIDE = 4
PLAN_FRAMES, OVERLAP_FRAMES = 24, 8


def with_prefix(base: str = "debug", **more) -> Any:
    return with_context(base, stride_frames=STRIDE, **more)


def text_alone(conditions: Conditions) -> Conditions:
    return Conditions({"text": conditions["text"]})


def test_rows_without_it_are_the_base_and_rows_with_it_are_not():
    """Not even with weights of zero: attention is shared out among more places."""
    plain = load_lm(resolve_base("debug"))
    for lm in (with_prefix(), with_prefix(moved=False)):
        inputs, conditions = inputs_of(lm, 12), conditions_of(lm, 12)
        without = conditions.dropped(torch.tensor([True, False]), {CONTEXT})
        with torch.no_grad():
            alone, shown = plain(inputs, text_alone(conditions)), lm(inputs, without)
            assert torch.equal(lm(inputs, text_alone(conditions)), alone)
            with added_conditions.silenced(lm):
                assert torch.equal(lm(inputs, conditions), alone)
        assert_close(shown[0], alone[0], rtol=0, atol=1e-5)
        assert (shown[1] - alone[1]).abs().max() > 0.01


def test_a_row_does_not_depend_on_the_length_of_another():
    lm = with_prefix()
    inputs, conditions = inputs_of(lm, 12), conditions_of(lm, 12)
    context = conditions[CONTEXT]
    short = Condition(context.values, context.mask & (torch.arange(18) < torch.tensor([[18], [7]])))
    alone = Condition(context.values[1:, :7], torch.ones(1, 7, dtype=torch.bool))
    text = Condition(conditions["text"].values[1:], conditions["text"].mask[1:])
    with torch.no_grad():
        both = lm(inputs, Conditions({**conditions.by_kind, CONTEXT: short}))
        one = lm(inputs[1:], Conditions({"text": text, CONTEXT: alone}))
    assert_close(both[1:], one, rtol=0, atol=1e-5)


def test_an_entry_stands_at_the_step_that_predicts_its_first_frame():
    assert first_steps(Delays((0, 1, 2, 3)), 5).tolist() == [0, 1, 2, 3, 4]
    assert first_steps(Flattened.fully(4), 3).tolist() == [0, 4, 8]
    lm = with_prefix(moved=False)
    found = lm.added.prefix(conditions_of(lm, 12), lm.pattern, lm._positions)
    assert len(found) == lm.added.places_in_front(12) == 5  # 12 frames and 6 of lookahead
    positions = lm._positions(17)[::STRIDE]
    assert_close(found.entries[0], positions)


def test_places_see_what_lies_before_them_and_the_prefix_as_far_as_it_is_theirs():
    shown = visible(torch.tensor([[True, False]]), 2)[0, 0].int().tolist()
    assert shown == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]


def test_the_null_rows_of_guidance_do_not_see_it():
    prefix = Prefix(torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.bool))
    assert prefix.for_passes(1).mask.all()
    assert prefix.for_passes(3).mask.any(1).tolist() == [True] * 4 + [False] * 2
    longer = prefix.lengthened(5)
    assert not longer.mask[:, 3:].any()
    assert longer.keep(torch.tensor([1])).entries.shape == (1, 5, 4)
    assert not prefix.equals(longer)


@pytest.mark.parametrize(
    ("guidance", "of_context", "loops"), [(1.0, None, False), (3.0, None, True), (3.0, 5.0, False), (2.0, 5.0, True)]
)
def test_the_fast_engine_plays_the_slow_ones_tokens(guidance, of_context, loops, monkeypatch):
    """Pieces of different length over several windows; the context ends before one of them does, one has none."""
    if loops:
        monkeypatch.setattr(kv_cache, "LOOPS_PAY_FROM", 0)
    lm = with_prefix("debug-stereo" if of_context else "debug")
    plan = WindowPlan(PLAN_FRAMES, OVERLAP_FRAMES, lm.spec.frame_rate)
    sampling = Sampling(guidance=guidance, top_k=20, context_guidance=of_context)
    requests = [*requests_of(lm, (36, 22, 30)), *requests_of(lm, (20,), context=False)]
    slow = played(WholeSequence(lm), requests, plan, sampling)
    packed = MusicgenEngine.pack(lm, lm.spec, Packing("fp32", CPU, torch.float32))
    for engine in (MusicgenEngine.borrow(lm, lm.spec), packed):
        for fast, expected in zip(played(engine, requests, plan, sampling), slow, strict=True):
            assert torch.equal(fast, expected)
    without = played(packed, requests_of(lm, (36, 22, 30), context=False), plan, sampling)
    assert any(not torch.equal(one, other) for one, other in zip(without, slow, strict=False))


@pytest.mark.parametrize("name", ["flattening", "coarse_first"])
def test_it_is_followed_in_another_pattern_too(name):
    lm = with_prefix(move=Move(PatternChoice(name, PLAN_FRAMES if name == "coarse_first" else 0)))
    plan, sampling = WindowPlan(PLAN_FRAMES, OVERLAP_FRAMES, lm.spec.frame_rate), Sampling(guidance=3.0, top_k=20)
    requests = requests_of(lm, (28, 25))
    slow = played(WholeSequence(lm), requests, plan, sampling)
    for fast, expected in zip(played(MusicgenEngine.borrow(lm, lm.spec), requests, plan, sampling), slow, strict=True):
        assert torch.equal(fast, expected)


def test_guidance_and_strength_may_change_while_playing():
    check_changing_scales(with_prefix())


def test_another_prefix_in_the_middle_of_a_window_is_read_as_if_it_had_always_been_there():
    lm = with_prefix()
    plan, found = WindowPlan(40, 8, lm.spec.frame_rate), []
    for engine in (MusicgenEngine.borrow(lm, lm.spec), WholeSequence(lm)):
        strengths = iter([1.0, 0.5, 0.0, 0.0, 1.0, 0.3])

        def direct(second: float, strengths=strengths) -> bool:
            lm.added.set_strength(next(strengths, 0.3))
            return True

        generation = Generation(engine, requests_of(lm, (36,)), Sampling(guidance=3.0, top_k=20), plan, direct)
        while not generation.done:
            generation.advance(5)
        found.append(generation.codes()[0])
    assert torch.equal(*found)


def test_a_captured_step_reads_what_the_plain_one_does():
    lm = with_prefix()
    plan = WindowPlan(40, 8, lm.spec.frame_rate)
    sampling, requests = Sampling(guidance=3.0, top_k=20), [*requests_of(lm, (30,)), *requests_of(lm, (30,), False)]
    plain = played(MusicgenEngine.borrow(lm, lm.spec), requests, plan, sampling)
    generation = Generation(MusicgenEngine.borrow(lm, lm.spec), requests, sampling, plan)
    generation.advance(1)
    steps: Any = generation.steps
    at = torch.tensor([steps.at])
    with torch.no_grad():
        while int(at) < steps.tape.n_columns - 1:
            steps.captured_step(at, steps._reach(int(at)))
    steps.at = int(at)
    for one, other in zip(generation.codes(), plain, strict=True):
        assert torch.equal(one, other)


@needs_known_torch
def test_on_a_card_it_is_played_through_graphs_that_nothing_waits_for():
    lm = with_prefix(moved=False)
    with FakeCard() as card:
        engine = MusicgenEngine.pack(lm, lm.spec, Packing("plain", torch.device("cuda"), torch.bfloat16))
        requests = [*requests_of(lm, (60,)), *requests_of(lm, (60,), context=False)]
        plan = WindowPlan(80, 20, lm.spec.frame_rate)
        generation = Generation(engine, requests, Sampling(3.0, 1.0, 20, context_guidance=5.0), plan)
        generation.advance(20)
        card.ledger.clear()
        generation.advance(30)
    assert not card.ledger.copies and not card.ledger.waits and card.ledger.replays == 30


def test_log_likelihoods_and_strength():
    lm = with_prefix()
    codes, conditions = inputs_of(lm, 15, rows=1)[0], conditions_of(lm, 15, rows=1)
    engine, slow = MusicgenEngine.borrow(lm, lm.spec), WholeSequence(lm)
    shown, alone = (engine.log_likelihoods(codes, given) for given in (conditions, text_alone(conditions)))
    assert_close(shown, slow.log_likelihoods(codes, conditions), rtol=0, atol=1e-4)
    assert (shown - alone).abs().max() > 0.01
    lm.added.set_strength(0.0)
    assert_close(slow.log_likelihoods(codes, conditions), alone, rtol=0, atol=1e-4)


def test_it_learns_and_two_kinds_stand_side_by_side():
    lm: Any = load_lm(resolve_base("debug"))
    infos = {
        CONTEXT: info_of(lm.spec, stride_frames=STRIDE),
        "melody": info_of(lm.spec, name="melody", values="floats", width=12, stride_frames=2),
        "beat": info_of(lm.spec, name="beat", values="floats", width=4),
    }
    modules: Any = added_conditions.start(lm, infos, seed=0)
    added_conditions.attach(lm, modules)
    n = 12
    rows = [
        {
            "text": torch.randn(3, lm.spec.text_width),
            CONTEXT: torch.randint(0, lm.card, (n, 4)),
            "melody": torch.randn(n, 12),
            "beat": torch.randn(n, 4),
        }
        for _ in range(2)
    ]
    logits = lm(inputs_of(lm, 12), batch_conditions(rows, lm.spec))
    logits.square().mean().backward()
    assert all(module.out.weight.grad.abs().max() > 0 for module in modules.values())
    assert len(lm.added.prefix(batch_conditions(rows, lm.spec), lm.pattern, lm._positions)) == 3 + 6


def test_a_stride_without_a_prefix_is_refused():
    with pytest.raises(ValueError, match="is for a prefix"):
        ContextSettings(stride_frames=4)
    assert ContextSettings(way="prefix", stride_frames=4).stride_frames == 4
