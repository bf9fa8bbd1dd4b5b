"""CUDA graphs play the same tokens as single kernels do, through windows and changes of settings and of conditions."""

import pytest
import torch

from adapters.decode.cuda_graphs import GraphedSteps
from adapters.decode.engine import Packing
from adapters.decode.generation import Generation, Request, WindowPlan
from adapters.decode.prompt_schedule import PromptSchedule
from adapters.decode.sampling import Sampling
from adapters.family.load import load_lm
from adapters.family.musicgen.cross_attention import ConditionStates, TextStates
from adapters.family.musicgen.engine import MusicgenEngine
from data_prep.base_files import BaseFiles


def part(value: float) -> TextStates:
    return TextStates([torch.full((1, 2, 3, 8), value)], [torch.full((1, 2, 3, 8), value)], None)


def test_taking_over_another_condition_leaves_the_original_alone() -> None:
    """What a graph reads is a copy: the texts of a prompt schedule are cached and must survive the next one."""
    first, second = part(1.0), part(2.0)
    own = ConditionStates([first]).own()
    buffer = own.parts[0].keys[0]
    assert own.take_over(ConditionStates([second]))
    assert own.parts[0].keys[0] is buffer
    torch.testing.assert_close(buffer, second.keys[0])
    torch.testing.assert_close(first.keys[0], torch.ones(1, 2, 3, 8))
    assert own.take_over(ConditionStates([first]))
    torch.testing.assert_close(buffer, first.keys[0])


def test_another_shape_is_not_taken_over() -> None:
    own = ConditionStates([part(1.0)]).own()
    assert not own.take_over(ConditionStates([part(1.0), part(2.0)], torch.ones(2, 1, 1)))


@pytest.mark.gpu
@pytest.mark.parametrize("sampling", [Sampling(3.0, 0.0), Sampling(1.0, 1.0, 20), Sampling(3.0, 0.9, 0, 0.8)])
def test_graphs_play_what_kernels_play(mono_base, sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = load_lm(BaseFiles("debug", None, mono_base))
    engine = MusicgenEngine.pack(lm, lm.spec, Packing("plain", torch.device("cuda"), torch.float32))
    texts = [torch.randn(4 + n, 12, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    schedule = PromptSchedule((0.0, 1.0), (texts[0], texts[1]), fade_sec=0.4)
    requests = [Request(schedule, 700, 1), Request(PromptSchedule.of(texts[2]), 333, 2)]

    def play() -> list[torch.Tensor]:
        generation = Generation(engine, requests, sampling, WindowPlan(400, 100, 50.0))
        generation.advance(100)
        generation.set_sampling(Sampling(2.0, sampling.temperature, sampling.top_k, sampling.top_p))
        while not generation.done:
            generation.advance(200)
        return generation.codes()

    graphed = play()
    plain = GraphedSteps.__init__

    def never_usable(self: GraphedSteps, *args: object) -> None:
        plain(self, *args)  # pyright: ignore[reportArgumentType]
        self.usable = False

    monkeypatch.setattr(GraphedSteps, "__init__", never_usable)
    for one, other in zip(graphed, play(), strict=True):
        torch.testing.assert_close(one, other)
