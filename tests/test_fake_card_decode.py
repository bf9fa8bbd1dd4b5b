"""Decoding on a card that is not there: graphs captured and replayed, nothing waits, every planted fault is noticed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_card.card import FakeCard, needs_known_torch

from adapters.decode.arithmetic import choose
from adapters.decode.engine import Packing
from adapters.decode.generation import Generation, Request, WindowPlan
from adapters.decode.prompt_schedule import PromptSchedule
from adapters.decode.sampling import Sampling
from adapters.family.lm import LM
from adapters.family.load import load_lm
from adapters.family.musicgen import decoder
from adapters.family.musicgen.engine import MusicgenEngine, MusicgenSteps
from adapters.family.musicgen.format import spec_of_sizes
from adapters.family.musicgen.kv_cache import KeyValueCache
from adapters.family.musicgen_melody.engine import MelodyEngine, MelodySteps
from adapters.low_rank import LowRank
from adapters.sampler import Sampler
from configs.precisions import BaseWeights
from configs.sample import SampleSettings
from data_prep.base_files import BaseFiles
from data_prep.debug_base import write_debug_base

pytestmark = needs_known_torch
CUDA = torch.device("cuda")
AMPERE, TURING = (8, 6), (7, 5)
LAYERS = "decoder.model.decoder.layers"
PLAN = WindowPlan(120, 40, 50.0)
WINDOW_END = {"value read in tape.check"}
"""The one place where the host may wait: a window played to its end."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> BaseFiles:
    """One layer: every operation costs half a millisecond here."""
    return BaseFiles("debug", None, write_debug_base(tmp_path_factory.mktemp("base") / "mono", layers=1))


@pytest.fixture(scope="module")
def lm(files: BaseFiles) -> LM:
    return load_lm(files)


def update(lm: LM, dora: bool) -> dict[str, LowRank]:
    found = {}
    for name in (f"{LAYERS}.0.self_attn.q_proj", f"{LAYERS}.0.fc1", "enc_to_dec_proj"):
        layer: Any = lm.get_submodule(name)
        n_out, n_in = layer.weight.shape
        magnitude = torch.rand(n_out) + 0.5 if dora and "q_proj" in name else None
        found[name] = LowRank(torch.randn(4, n_in), torch.randn(n_out, 4), 4.0, False, magnitude)
    return found


def texts(count: int) -> list[torch.Tensor]:
    return [torch.randn(4 + n, 12) for n in range(count)]


def generation(
    lm: LM,
    adapters: Mapping[str, Mapping[str, LowRank]] | None = None,
    merged_at: Mapping[str, float] | None = None,
    direct: Any = lambda second: False,
) -> Generation:
    arithmetic = choose("auto", CUDA)
    packing = Packing(arithmetic.kind, CUDA, arithmetic.dtype, adapters or {}, merged_at)
    engine = MusicgenEngine.pack(lm, lm.spec, packing)
    first, second, third = texts(3)
    schedule = PromptSchedule((0.0, 0.4), (first, second), fade_sec=0.2)
    known = torch.zeros(4, 20, dtype=torch.long)
    requests = [Request(schedule, 170, 1), Request(PromptSchedule.of(third), 90, 2, known)]
    if direct is None:
        direct = lambda second: engine.strengths.set({"one": second % 1.0, "two": 0.5})  # noqa: E731
    return Generation(engine, requests, Sampling(3.0, 1.0, 20), PLAN, direct)


def play(made: Generation) -> MusicgenSteps:
    """Through windows, fades, a row that ends before the other, and every kind of change of settings."""
    made.advance(40)
    for sampling in (Sampling(2.0, 0.9, 10, 0.9), Sampling(1.0, 0.0), Sampling(3.0, 0.0)):
        made.set_sampling(sampling)
        made.advance(8)
    while not made.done:
        made.advance(100)
    assert [tuple(codes.shape) for codes in made.codes()] == [(4, 170), (4, 90)]
    assert isinstance(made.steps, MusicgenSteps)
    return made.steps


@pytest.mark.parametrize(
    ("kind", "capability"),
    [("no adapter", AMPERE), ("merged", TURING), ("live, DoRA", AMPERE)],
)
def test_graphs_play_everything_and_nothing_waits(lm: LM, kind: str, capability: tuple[int, int]) -> None:
    one, two = update(lm, False), update(lm, "DoRA" in kind)
    adapters = {} if kind == "no adapter" else {"one": one} if kind == "merged" else {"one": one, "two": two}
    with FakeCard(capability) as card:
        live = kind.startswith("live")
        made = generation(lm, adapters, {"one": 0.7} if kind == "merged" else None, None if live else lambda _: False)
        card.ledger.clear()
        steps = play(made)
        assert steps.weights.dtype == (torch.bfloat16 if capability == AMPERE else torch.float16)
    told = card.ledger
    assert steps.graphs.usable and set(told.waits) == WINDOW_END
    assert told.replays > 120 and told.captures <= 12
    assert set(told.upcasts) <= {"in decoder.logits"}


def test_what_changes_while_playing_is_small(lm: LM) -> None:
    """Texts and strengths are set at changes only: a steady window copies nothing at all."""
    with FakeCard() as card:
        engine = MusicgenEngine.pack(lm, lm.spec, Packing("plain", CUDA, torch.bfloat16))
        requests = [Request(PromptSchedule.of(texts(1)[0]), 150, 1)]
        made = Generation(engine, requests, Sampling(3.0, 1.0, 20), WindowPlan(200, 60, 50.0))
        made.advance(20)
        card.ledger.clear()
        made.advance(100)
    assert not card.ledger.copies and not card.ledger.waits and card.ledger.replays == 100


def test_a_step_makes_its_mask_once_and_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks of booleans would be turned into numbers in every layer. No card is needed for this one."""
    masks: list[torch.Tensor] = []

    def noting(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_mask: torch.Tensor) -> torch.Tensor:
        masks.append(attn_mask)
        return q

    monkeypatch.setattr(decoder.functional, "scaled_dot_product_attention", noting)
    cache = KeyValueCache(spec_of_sizes(64, 3, 4, 128), 1, 20, torch.device("cpu"), torch.bfloat16)
    attend = decoder.attend_in_bucket(cache, torch.tensor([2]), 256)
    row = torch.zeros(1, 4, 1, 16, dtype=torch.bfloat16)
    for layer in range(3):
        attend(layer, row, row, row)
    assert masks[0].dtype == torch.bfloat16 and all(mask is masks[0] for mask in masks)
    assert masks[0][0, 0, 0, :4].tolist() == [0.0, 0.0, 0.0, -torch.inf]


def test_weights_in_int8(lm: LM) -> None:
    """torch's own kernel for the rows of a step, the weight made whole for a prefill; nothing waits."""
    with FakeCard() as card:
        arithmetic = choose("int8", CUDA)
        engine = MusicgenEngine.pack(lm, lm.spec, Packing(arithmetic.kind, CUDA, arithmetic.dtype))
        made = Generation(engine, [Request(PromptSchedule.of(texts(1)[0]), 40, 1)], Sampling(3.0, 1.0, 20), PLAN)
        card.ledger.clear()
        while not made.done:
            made.advance(20)
        assert isinstance(made.steps, MusicgenSteps) and made.steps.graphs.usable
    assert set(card.ledger.waits) == WINDOW_END and card.ledger.captures == 1 and card.ledger.replays > 30
    assert card.ledger.kernels[torch.ops.aten._weight_int8pack_mm.default] >= 3 * 8  # two warm-ups and the capture


@pytest.mark.parametrize("weights", ["nf4", "int8"])
def test_a_quantised_base(files: BaseFiles, weights: BaseWeights) -> None:
    """In 4 bits products wait for nothing and graphs hold them; in 8 bits each asks for outliers: no graph is tried."""
    with FakeCard() as card:
        mine = load_lm(files, weights=weights, device="cuda")
        sampler = Sampler.around(mine, SampleSettings.model_validate({"duration_sec": 0.3}))
        card.ledger.clear()
        (codes,) = sampler.codes(texts(1))
    told = card.ledger
    assert codes.shape == (4, 15)
    if weights == "nf4":
        assert set(told.waits) == WINDOW_END and told.captures == 1 and told.replays > 10
    else:
        assert not told.captures and all("outliers" in wait for wait in set(told.waits) - WINDOW_END)


def test_a_prefix_before_the_first_step(tmp_path: Path) -> None:
    """Melody models: graphs behind the prefix, through windows, rows that leave, and a text that changes in between."""
    base = BaseFiles("debug", None, write_debug_base(tmp_path / "melody", layers=1, melody=True))
    mine = load_lm(base)
    first, second, third = texts(3)
    changing = PromptSchedule((0.0, 0.4), (first, second), fade_sec=0.2)
    melody = {"melody": torch.eye(12)[torch.arange(60) % 12]}
    requests = [Request(changing, 150, 1, also=melody), Request(PromptSchedule.of(third), 90, 2)]
    with FakeCard() as card:
        engine = MelodyEngine.pack(mine, mine.spec, Packing("plain", CUDA, torch.bfloat16))
        made = Generation(engine, requests, Sampling(3.0, 1.0, 20), PLAN)
        card.alike = False  # every change is one: all that was read is read again behind the new prefix
        while not made.done:
            made.advance(100)
        assert [tuple(codes.shape) for codes in made.codes()] == [(4, 150), (4, 90)]
        assert isinstance(made.steps, MelodySteps)
        assert made.steps.graphs.usable and made.steps._offset == 235 + 5  # of the text it changed to
    assert set(card.ledger.waits) <= WINDOW_END | {"value read in engine.follow"}
    assert card.ledger.replays > 120 and 1 <= card.ledger.captures <= 6


def test_pieces_at_once_are_fitted_to_the_card(lm: LM) -> None:
    """With 8 GiB free, medium in 16 bits has no room for 9 guided pieces of half a minute."""
    with FakeCard(total_bytes=9 * 2**30):
        engine = MusicgenEngine.pack(lm, lm.spec, Packing("plain", CUDA, torch.bfloat16))
        engine.spec = spec_of_sizes(1536, 48, 24, 6144)
        each = engine.row_bytes(1500, passes=2)
        engine.spec = lm.spec
        engine.row_bytes = lambda n_frames, *, passes: each  # pyright: ignore[reportAttributeAccessIssue]
        settings = SampleSettings.model_validate({"duration_sec": 0.04})
        sampler = Sampler(engine, lambda words: [], None, settings)
        sampler.codes(texts(9))
    assert 864 < each / 2**20 < 1000  # its keys and values take 864 MiB
    assert sampler.most_at_once == int(8 * 2**30 * 0.8) // each


# ---- faults, planted


def test_a_mask_left_on_the_cpu_is_noticed(lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = decoder.reachable
    monkeypatch.setattr(decoder, "reachable", lambda at, reach, dtype: plain(at.cpu(), reach, dtype))
    with FakeCard(), pytest.raises(Exception, match="at least two devices"):
        generation(lm).advance(3)


def test_a_value_read_in_a_step_is_noticed(lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = MusicgenSteps.captured_step

    def asking(self: MusicgenSteps, at: torch.Tensor, reach: int) -> None:
        plain(self, at, reach)
        assert bool(self.tape.finite)

    monkeypatch.setattr(MusicgenSteps, "captured_step", asking)
    with FakeCard() as card, pytest.warns(UserWarning, match="value read while a graph is captured"):
        generation(lm).advance(3)
    assert not card.ledger.captures or card.ledger.replays == 0


def test_a_buffer_left_on_the_cpu_is_noticed(lm: LM) -> None:
    with FakeCard(), pytest.raises(Exception, match="device"):
        made = generation(lm)
        made.advance(1)
        assert made.tape is not None
        made.tape.frames = made.tape.frames.cpu() + torch.zeros(4, 1, dtype=torch.long)
        made.steps.restart()  # pyright: ignore[reportOptionalMemberAccess]
        made.advance(5)


def test_a_generator_of_the_other_side_is_noticed() -> None:
    with FakeCard(), pytest.raises(RuntimeError, match="cpu generator for numbers on cuda"), torch.device("cuda"):
        torch.randn(3, generator=torch.Generator("cpu"))
