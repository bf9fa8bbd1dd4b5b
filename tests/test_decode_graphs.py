"""CUDA graphs play the same tokens as single kernels do, through windows, turns and changes of condition."""

import pytest
import torch

from adapters.decode.conditions import CrossPart, Hearing
from adapters.decode.performance import Frame, Performance, Piece
from adapters.decode.sampling import Sampling
from adapters.decode.story import Story
from adapters.decode.weights import Packing, pack
from adapters.lm import load_lm
from data_prep.base_files import BaseFiles


def part(value: float) -> CrossPart:
    return CrossPart([torch.full((1, 2, 3, 8), value)], [torch.full((1, 2, 3, 8), value)], None)


def test_taking_over_another_condition_leaves_the_original_alone() -> None:
    """What a graph reads is a copy: the texts of a story are cached and must survive the next one."""
    first, second = part(1.0), part(2.0)
    own = Hearing([first]).own()
    buffer = own.parts[0].keys[0]
    assert own.take_over(Hearing([second]))
    assert own.parts[0].keys[0] is buffer
    torch.testing.assert_close(buffer, second.keys[0])
    torch.testing.assert_close(first.keys[0], torch.ones(1, 2, 3, 8))
    assert own.take_over(Hearing([first]))
    torch.testing.assert_close(buffer, first.keys[0])


def test_another_shape_is_not_taken_over() -> None:
    own = Hearing([part(1.0)]).own()
    assert not own.take_over(Hearing([part(1.0), part(2.0)], torch.ones(2, 1, 1)))


@pytest.mark.gpu
@pytest.mark.parametrize("sampling", [Sampling(3.0, 0.0), Sampling(1.0, 1.0, 20), Sampling(3.0, 0.9, 0, 0.8)])
def test_graphs_play_what_kernels_play(mono_base, sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda")
    weights = pack(load_lm(BaseFiles("debug", None, mono_base)), Packing("plain", device, torch.float32))
    texts = [torch.randn(4 + n, 12, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    story = Story((0.0, 1.0), (texts[0], texts[1]), fade_sec=0.4)
    pieces = [Piece(story, 700, 1), Piece(Story.of(texts[2]), 333, 2)]

    def play() -> list[torch.Tensor]:
        performance = Performance(weights, pieces, sampling, Frame(400, 100))
        performance.play(100)
        performance.turn(Sampling(2.0, sampling.temperature, sampling.top_k, sampling.top_p))
        while not performance.done:
            performance.play(200)
        return performance.codes()

    graphed = play()
    monkeypatch.setattr(
        "adapters.decode.window.GraphedSteps.usable", property(lambda self: False, lambda self, v: None)
    )
    for one, other in zip(graphed, play(), strict=True):
        torch.testing.assert_close(one, other)
