"""A condition that an adapter brings: silent at the start, and the same in the fast engine as in the slow one."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from adapters.added_conditions import attach as added_conditions
from adapters.added_conditions.frames import FrameCodes, offsets_of, predicted_frames
from adapters.conditions import Condition, Conditions, batch_conditions
from adapters.decode.engine import Packing
from adapters.decode.generation import Generation, Request, WindowPlan
from adapters.decode.prompt_schedule import PromptSchedule
from adapters.decode.sampling import Knobs, Sampling, guide
from adapters.decode.whole_sequence import WholeSequence
from adapters.family.load import load_lm
from adapters.family.musicgen.engine import MusicgenEngine
from adapters.metadata import AddedInfo
from adapters.pattern import Delays
from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.move import Move
from data_prep.pattern_choice import PatternChoice

CONTEXT, MELODY = "context", "melody"
CPU = torch.device("cpu")


def info_of(spec, **changes) -> AddedInfo:
    given = {"name": CONTEXT, "values": "codes", "width": spec.n_codebooks, "size": 8, "lookahead_frames": 6}
    return AddedInfo(**{**given, **changes})


def with_context(base: str, *, moved: bool = True, move: Move | None = None, **changes):
    """A base that follows a context track; `moved`: with weights as training could leave them."""
    lm = load_lm(resolve_base(base).moved(move or Move()))
    info = info_of(lm.spec, **changes)
    modules = added_conditions.start(lm, {info.name: info}, seed=0)
    if moved:
        generator = torch.Generator().manual_seed(5)
        for module in modules.values():
            module.out.weight.data = torch.randn(module.out.weight.shape, generator=generator)
    added_conditions.attach(lm, modules)
    return lm


def conditions_of(lm, n_frames: int, rows: int = 2, seed: int = 0, context: bool = True) -> Conditions:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for row in range(rows):
        text = torch.randn(3 + row, lm.spec.text_width, generator=generator)
        codes = torch.randint(0, lm.card, (n_frames + 6, lm.n_codebooks), generator=generator)
        found.append({"text": text, CONTEXT: codes} if context else {"text": text})
    return batch_conditions(found, lm.spec)


def inputs_of(lm, n_steps: int, rows: int = 2):
    return torch.randint(0, lm.card, (rows, lm.n_codebooks, n_steps), generator=torch.Generator().manual_seed(1))


def test_a_step_reads_the_frame_it_predicts_and_some_behind_it():
    assert offsets_of(0) == [0]
    assert offsets_of(1) == [0, 1]
    assert offsets_of(6) == [0, 1, 2, 4, 6]
    assert predicted_frames(Delays((0, 1, 2, 3)), 5).tolist() == [0, 1, 2, 3, 4]
    assert predicted_frames(Delays((0, 0)), 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("base", ["debug", "debug-stereo"])
def test_at_the_start_the_base_plays_what_it_would_alone(base):
    plain = load_lm(resolve_base(base))
    lm: Any = with_context(base, moved=False)
    inputs = inputs_of(lm, 12)
    with torch.no_grad():
        alone = plain(inputs, Conditions({"text": conditions_of(lm, 12)["text"]}))
        assert torch.equal(lm(inputs, conditions_of(lm, 12)), alone)


def test_it_reaches_the_steps_it_should_and_nowhere_else():
    """Frame f reaches the steps that predict the frames from f minus the lookahead on, and no other."""
    lm: Any = with_context("debug")
    inputs, conditions = inputs_of(lm, 20), conditions_of(lm, 20)
    context = conditions[CONTEXT]
    other = context.values.clone()
    other[:, 15] = (other[:, 15] + 1) % lm.card
    with torch.no_grad():
        one = lm(inputs, conditions)
        two = lm(inputs, Conditions({**conditions.by_kind, CONTEXT: replace(context, values=other)}))
    changed = (one != two).any(-1).any(1)[0]
    assert not changed[: 15 - 6].any()
    assert changed[15 - 6 :].all()


def test_rows_without_it_are_the_base():
    lm: Any = with_context("debug")
    inputs, conditions = inputs_of(lm, 12), conditions_of(lm, 12)
    without = conditions.dropped(torch.tensor([True, False]), {CONTEXT})
    with torch.no_grad():
        shown, context = lm(inputs, without), lm(inputs, conditions)
        with added_conditions.silenced(lm):
            alone = lm(inputs, conditions)
    assert_close(shown[0], alone[0], rtol=0, atol=1e-6)
    assert_close(shown[1], context[1], rtol=0, atol=1e-6)
    assert (shown[1] - alone[1]).abs().max() > 0.01


def test_codes_that_the_base_holds_for_alike_begin_alike():
    lm: Any = load_lm(resolve_base("debug"))
    tables = torch.randn(lm.n_codebooks, lm.card, 16, generator=torch.Generator().manual_seed(0))
    tables[0, 7] = tables[0, 9]
    context: Any = with_context("debug")
    module = FrameCodes(context.added.kinds[CONTEXT].kind, 8, 16, lm.card)
    module.start_from(tables)
    assert_close(module.tables[0, 7], module.tables[0, 9])
    summed = module.entries(torch.randint(0, lm.card, (1, 4000, lm.n_codebooks)))
    assert 0.8 < float(summed.detach().std()) < 1.2


def played(engine, requests, plan, sampling, at_once=7):
    generation = Generation(engine, requests, sampling, plan)
    while not generation.done:
        generation.advance(at_once)
    return generation.codes()


def requests_of(lm, lengths, context=True):
    generator = torch.Generator().manual_seed(3)
    found = []
    for seed, n_frames in enumerate(lengths):
        text = torch.randn(3 + seed, lm.spec.text_width, generator=generator)
        codes = torch.randint(0, lm.card, (n_frames - 4 * seed, lm.n_codebooks), generator=generator)
        also = {CONTEXT: codes} if context else {}
        found.append(Request(PromptSchedule.of(text), n_frames, seed, also=also))
    return found


@pytest.mark.parametrize("name", ["flattening", "coarse_first"])
def test_it_is_followed_in_another_pattern_too(name):
    span = 24 if name == "coarse_first" else 0
    lm: Any = with_context("debug", move=Move(PatternChoice(name, span)))
    plan, sampling = WindowPlan(24, 8, lm.spec.frame_rate), Sampling(guidance=3.0, top_k=20)
    requests = requests_of(lm, (40, 31))
    slow = played(WholeSequence(lm), requests, plan, sampling)
    engine = MusicgenEngine.borrow(lm, lm.spec)
    for fast, expected in zip(played(engine, requests, plan, sampling), slow, strict=True):
        assert torch.equal(fast, expected)
    without = played(engine, requests_of(lm, (40, 31), context=False), plan, sampling)
    assert any(not torch.equal(one, other) for one, other in zip(without, slow, strict=True))


@pytest.mark.parametrize("base", ["debug", "debug-stereo"])
@pytest.mark.parametrize(("guidance", "of_context"), [(1.0, None), (3.0, None), (3.0, 5.0), (1.0, 4.0)])
def test_the_fast_engine_plays_the_slow_ones_tokens(base, guidance, of_context):
    """Pieces of different length over several windows; the context ends before one of them does."""
    lm: Any = with_context(base)
    plan, sampling = (
        WindowPlan(24, 8, lm.spec.frame_rate),
        Sampling(guidance=guidance, top_k=20, context_guidance=of_context),
    )
    requests = requests_of(lm, (50, 31, 40))
    slow = played(WholeSequence(lm), requests, plan, sampling)
    packed = MusicgenEngine.pack(lm, lm.spec, Packing("plain", CPU, torch.float32))
    for engine in (MusicgenEngine.borrow(lm, lm.spec), packed):
        for fast, expected in zip(played(engine, requests, plan, sampling), slow, strict=True):
            assert torch.equal(fast, expected)
    without = played(packed, requests_of(lm, (50, 31, 40), context=False), plan, sampling)
    assert any(not torch.equal(one, other) for one, other in zip(without, slow, strict=True))


def test_text_and_context_have_scales_of_their_own():
    """The formula on made-up logits; equal scales are one scale, and a row without context has the text's alone."""
    both, only, null = (torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(n)) for n in range(3))

    def guided(guidance, of_context, rows):
        knobs = Knobs(Sampling(guidance=guidance, context_guidance=of_context), 4, 16, CPU)
        return guide(torch.cat(rows), knobs, 2, knobs.sampling.passes)

    assert_close(guided(2.0, 5.0, [both, only, null]), null + 5 * (only - null) + 2 * (both - only))
    assert_close(guided(2.0, 2.0, [both, null]), null + 2 * (both - null))
    assert_close(guided(2.0, 5.0, [both, null, null]), null + 2 * (both - null))
    assert_close(guided(1.0, 1.0, [both]), both)
    assert [Sampling(g, context_guidance=c).passes for g, c in ((1, None), (1, 1), (3, None), (3, 3), (1, 2))] == [
        1,
        1,
        2,
        2,
        3,
    ]


def check_changing_scales(lm: Any) -> None:
    """The context gets a scale of its own and loses it while it plays: the fast engine plays what the slow one does."""
    plan = WindowPlan(40, 8, lm.spec.frame_rate)
    found = []
    for engine in (WholeSequence(lm), MusicgenEngine.borrow(lm, lm.spec)):
        generation = Generation(engine, requests_of(lm, (30, 24)), Sampling(guidance=3.0, top_k=20), plan)
        for of_context in (6.0, None):
            generation.advance(8)
            generation.set_sampling(Sampling(guidance=3.0, top_k=20, context_guidance=of_context))
        while not generation.done:
            generation.advance(8)
        found.append(generation.codes())
    assert all(torch.equal(slow, fast) for slow, fast in zip(*found, strict=True))


def test_guidance_may_get_and_lose_a_scale_of_the_context_while_playing():
    check_changing_scales(with_context("debug"))


def test_log_likelihoods_follow_it_too():
    lm: Any = with_context("debug")
    codes = inputs_of(lm, 15, rows=1)[0]
    conditions = conditions_of(lm, 15, rows=1)
    fast = MusicgenEngine.borrow(lm, lm.spec).log_likelihoods(codes, conditions)
    assert_close(fast, WholeSequence(lm).log_likelihoods(codes, conditions), rtol=0, atol=1e-4)
    text = Conditions({"text": conditions["text"]})
    assert (fast - MusicgenEngine.borrow(lm, lm.spec).log_likelihoods(codes, text)).abs().max() > 0.01


def test_strength_multiplies_what_is_added():
    lm: Any = with_context("debug")
    context = conditions_of(lm, 9)
    full = lm.added(context, lm.pattern, 9)
    lm.added.set_strength(0.5)
    assert_close(lm.added(context, lm.pattern, 9), full * 0.5)


def test_a_base_that_cannot_follow_says_so():
    lm: Any = with_context("debug")
    with pytest.raises(UserError, match="by itself"):
        added_conditions.attach(lm, {CONTEXT: lm.added.kinds[CONTEXT]})
    lm.code_tables = lambda: None
    with pytest.raises(UserError, match="cannot learn to follow context"):
        added_conditions.start(lm, {CONTEXT: info_of(lm.spec)}, seed=0)


def test_features_are_added_as_codes_are():
    lm: Any = with_context("debug", name="melody", values="floats", width=12)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(1, 10, 12, generator=generator)
    conditions = Conditions({MELODY: Condition(values, torch.ones(1, 10, dtype=torch.bool))})
    shown = lm.added(conditions, lm.pattern, 13)
    assert shown.shape == (1, 13, lm.spec.hidden)
    assert shown[:, :10].abs().amax(-1).min() > 0
    assert (shown[:, 10:] == 0).all()
