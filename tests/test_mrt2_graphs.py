"""The levels of a frame as one CUDA graph: the same codes, captured and replayed on the fake card, nothing waits."""

from typing import Any

import pytest
import torch
from fake_card.card import FakeCard, needs_known_torch

from adapters.decode.cuda_graphs import GraphedSteps
from adapters.decode.engine import Packing
from adapters.decode.generation import Generation, Request, WindowPlan
from adapters.decode.prompt_schedule import PromptSchedule
from adapters.decode.sampling import Sampling
from adapters.family.load import load_lm
from adapters.family.magenta_rt2.engine import MagentaEngine, MagentaTapeSteps
from adapters.family.magenta_rt2.lm import MagentaLM
from adapters.low_rank import LowRank
from data_prep.base_files import resolve_base

CUDA = torch.device("cuda")
CHANGES_OF_WINDOWS = {"value read in tape.check", "value read in engine.restart"}


def model() -> MagentaLM:
    lm = load_lm(resolve_base("debug-mrt2"))
    assert isinstance(lm, MagentaLM)
    return lm


def generation(engine: MagentaEngine, direct: Any = lambda second: False) -> Generation:
    """Two pieces of several windows, one of which ends before the other; a story, and a beginning that is known."""
    draw = torch.Generator().manual_seed(3)
    first, second, third = (torch.randint(0, 1024, (1, 12), generator=draw) for _ in range(3))
    known = torch.randint(0, 64, (12, 5), generator=draw)
    story = PromptSchedule((0.0, 0.3), (first, second), fade_sec=0.2)
    requests = [Request(story, 16, 1), Request(PromptSchedule.of(third), 9, 2, known)]
    return Generation(engine, requests, Sampling(3.0, 1.0, 20), WindowPlan(12, 4, 25.0), direct)


def play(made: Generation) -> list[torch.Tensor]:
    made.advance(2)
    for sampling in (Sampling(2.0, 0.9, 10, 0.9), Sampling(4.0, 0.0)):
        made.set_sampling(sampling)
        made.advance(1)
    while not made.done:
        made.advance(9)
    return made.codes()


def test_the_captured_half_of_a_frame_plays_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a graph would record, run with its place on the device, buffers and all."""
    engine = MagentaEngine(model())
    plain, runs = play(generation(engine)), []

    def recorded(self: GraphedSteps, at: int, until: int) -> int:
        runs.append(at)
        for _ in range(3):  # warm-ups and the capture run it too
            self.place.fill_(at)
            self.step(self.place, 0)
        return until

    monkeypatch.setattr(GraphedSteps, "advance", recorded)
    for one, other in zip(play(generation(engine)), plain, strict=True):
        assert torch.equal(one, other)
    assert len(runs) > 10


@needs_known_torch
def test_frames_replay_one_graph_and_nothing_waits() -> None:
    """With an adapter that is turned while it plays."""
    lm = model()
    name = "depth.layers.0.ffn.fc1"
    weight: Any = lm.get_submodule(name).weight
    update = LowRank(torch.randn(4, weight.shape[1]), torch.randn(weight.shape[0], 4), 4.0, False)
    with FakeCard() as card:
        engine = MagentaEngine.pack(lm, Packing("plain", CUDA, torch.bfloat16, {"one": {name: update}}, None))
        text = torch.zeros(1, 12, dtype=torch.long)
        piece = Request(PromptSchedule.of(text), 10, 1)
        plan = WindowPlan(7, 3, 25.0)
        direct = lambda second: engine.strengths.set({"one": second % 1.0})  # noqa: E731
        made = Generation(engine, [piece], Sampling(3.0, 1.0, 20), plan, direct)
        card.ledger.clear()
        made.advance(5)
        made.set_sampling(Sampling(4.0, 0.0))
        while not made.done:
            made.advance(9)
    steps = made.steps
    assert isinstance(steps, MagentaTapeSteps) and steps.graphs.usable
    told = card.ledger
    assert set(told.waits) <= CHANGES_OF_WINDOWS and told.replays == 10 and told.captures <= 3


@needs_known_torch
def test_most_kernels_of_a_frame_are_in_the_graph() -> None:
    with FakeCard() as card:
        engine = MagentaEngine.pack(model(), Packing("plain", CUDA, torch.bfloat16))
        text = torch.zeros(1, 12, dtype=torch.long)
        made = Generation(
            engine, [Request(PromptSchedule.of(text), 40, 1)], Sampling(3.0, 1.0, 20), WindowPlan(60, 9, 25.0)
        )
        made.advance(3)
        counted = []
        for usable in (True, False):
            assert isinstance(made.steps, MagentaTapeSteps)
            made.steps.graphs.usable = usable
            card.ledger.clear()
            made.advance(1)
            counted.append(sum(card.ledger.kernels.values()))
    graphed, plain = counted
    assert not card.ledger.captures and graphed < 0.3 * plain


@pytest.mark.gpu
def test_graphs_play_what_kernels_play(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = MagentaEngine.pack(model(), Packing("plain", CUDA, torch.float32))
    graphed = play(generation(engine))
    monkeypatch.setattr(GraphedSteps, "advance", lambda self, at, until: at)
    for one, other in zip(graphed, play(generation(engine)), strict=True):
        assert torch.equal(one, other)
