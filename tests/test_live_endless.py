"""What playing without an end needs below it: pieces in constant memory, and prompts with weights that cross-fade."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adapters.decode.prompt_mix import PromptMix
from adapters.sampler import Sampler
from configs.errors import UserError
from configs.sample import SampleSettings
from data_prep.base_files import BaseFiles

SECONDS = {"window_sec": 1.0, "overlap_sec": 0.4, "precision": "fp32"}


@pytest.fixture(scope="module")
def sampler(mono_base: Path) -> Sampler:
    settings = SampleSettings.model_validate({"duration_sec": 6.0, **SECONDS})
    return Sampler.load(BaseFiles("debug", None, mono_base), (), settings)


@pytest.fixture(scope="module")
def whole(sampler: Sampler) -> Tensor:
    return sampler.sample(["drums"], seeds=[4])[0].waveform


def test_an_endless_piece_is_the_long_piece_in_constant_memory(sampler: Sampler, whole: Tensor) -> None:
    with sampler.stream("drums", seed=4, endless=True) as music:
        chunks, kept = [], []
        for chunk in islice(music, 6):
            chunks.append(chunk)
            kept.append(music.generation.codes()[0].shape[1])
    played = torch.cat(chunks, dim=1)
    assert played.shape[1] > 5 * 32000
    torch.testing.assert_close(played, whole[:, : played.shape[1]], rtol=0, atol=2e-6)
    assert max(kept) <= 2 * round(sampler.frame_rate) and kept[-1] == kept[-2]


@pytest.mark.parametrize("chunk_sec", [0.1, 0.3])
def test_chunks_are_equally_long_where_a_window_ends_too(sampler: Sampler, whole: Tensor, chunk_sec: float) -> None:
    """What a window reads again is no new music: it must neither shorten a chunk nor make one empty."""
    with sampler.stream("drums", seed=4, endless=True) as music:
        music.chunk_frames = round(chunk_sec * sampler.frame_rate)
        chunks = list(islice(music, round(4 / chunk_sec)))
    assert {chunk.shape[1] for chunk in chunks[3:]} == {round(chunk_sec * 32000)}
    played = torch.cat(chunks, dim=1)
    torch.testing.assert_close(played, whole[:, : played.shape[1]], rtol=0, atol=2e-6)


def test_frames_that_are_gone_are_refused(sampler: Sampler) -> None:
    with sampler.stream("drums", endless=True) as music:
        list(islice(music, 5))
        with pytest.raises(ValueError, match="gone"):
            music.generation.frames(0, 0, 10)


def test_one_prompt_in_a_mix_is_that_prompt(sampler: Sampler) -> None:
    plain = sampler.codes(["drums"], n_frames=40)[0]
    mixed = sampler.codes([PromptMix.of(["drums", "piano"], [2.0, 0.0])], n_frames=40)[0]
    assert (plain == mixed).all()


def test_weights_change_the_music(sampler: Sampler) -> None:
    texts = ["drums", "a quiet piano, slow"]
    made = {tuple(w): sampler.codes([PromptMix.of(texts, w)], n_frames=60)[0] for w in ([1.0, 0.0], [1.0, 1.0])}
    first, second = made.values()
    assert (first != second).any()


def test_weights_while_playing_count_from_then_on(sampler: Sampler) -> None:
    def play(turned: bool) -> Tensor:
        with sampler.stream(PromptMix.of(["drums"], [1.0]), seed=1) as music:
            chunks = iter(music)
            parts = [next(chunks)]
            if turned:
                mix = PromptMix.of(["drums"], [1.0])
                music.set_prompt(mix.moved(["drums", "piano"], [1.0, 3.0], 0.5, 0.5))
            return torch.cat([*parts, *islice(chunks, 3)], dim=1)

    straight, turned = play(False), play(True)
    n = round(0.2 * 32000)
    torch.testing.assert_close(straight[:, :n], turned[:, :n], rtol=0, atol=2e-6)
    assert (straight - turned).abs().max() > 1e-3


def test_a_mix_moves_in_a_straight_line_and_keeps_its_sum() -> None:
    mix = PromptMix.of(["a", "b"], [1.0, 3.0]).moved(["b", "c"], [1.0, 1.0], 10.0, 4.0)
    assert list(mix.texts) == ["a", "b", "c"]
    assert mix.shares(9.0) == mix.shares(10.0) == [0.25, 0.75, 0.0]
    assert mix.shares(12.0) == pytest.approx([0.125, 0.625, 0.25])
    assert mix.shares(14.0) == mix.shares(99.0) == [0.0, 0.5, 0.5]
    again = mix.moved(["c"], [5.0], 12.0, 0.0)
    assert again.shares(12.0) == pytest.approx([0.0, 0.0, 1.0])
    assert sum(mix.moved(["a"], [1.0], 11.0, 2.0).shares(11.7)) == pytest.approx(1.0)


def test_the_same_text_twice_is_one_with_both_weights() -> None:
    mix = PromptMix.of(["a", "b", "a"], [1.0, 2.0, 1.0])
    assert (list(mix.texts), mix.shares(0.0)) == (["a", "b"], [0.5, 0.5])
    moved = mix.moved(["c", "a", "c"], [1.0, 2.0, 1.0], 1.0, 2.0)
    assert (list(moved.texts), moved.shares(3.0)) == (["a", "b", "c"], [0.5, 0.0, 0.5])
    assert moved.shares(1.0) == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("weights", [[0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_weights_that_mean_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(UserError, match="weights"):
        PromptMix.of(["a", "b"], weights)
