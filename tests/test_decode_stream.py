"""Streaming: the codec in stretches is one decode, and a stream is the piece that `sample` makes."""

import numpy as np
import pytest
import torch

from adapters.decode.prompt_schedule import PromptSchedule, read_prompt_schedule
from adapters.decode.strength_schedule import StrengthSchedule
from adapters.sampler import Sampler
from configs.errors import UserError
from configs.sample import SampleSettings
from data_prep.base_files import BaseFiles
from data_prep.codec.encodec_stream import EncodecStream
from data_prep.codec.registry import load_base_codec


@pytest.fixture(params=["mono", "stereo"])
def base(request: pytest.FixtureRequest) -> BaseFiles:
    return BaseFiles("debug", None, request.getfixturevalue(f"{request.param}_base"))


@pytest.mark.parametrize("n_frames", [1, 3, 6, 7, 50])
@pytest.mark.parametrize("stretch", [1, 4, 25])
def test_stretches_are_one_decode(base: BaseFiles, n_frames: int, stretch: int) -> None:
    """Equal up to the order of float sums: convolutions of another length add in another order, about 1e-7 of full
    scale per layer. A seam would be a thousand times larger."""
    codec = load_base_codec(base)
    codes = np.random.default_rng(0).integers(0, codec.card, (codec.n_codebooks, n_frames)).astype(np.int16)
    whole = codec.decode(codes)
    stream, parts = codec.stream(), []
    for start in range(0, n_frames, stretch):
        parts.append(stream.push(codes[:, start : start + stretch], last=start + stretch >= n_frames))
        held_back = min(start + stretch, n_frames) - sum(part.shape[1] for part in parts) / codec.hop_samples
        assert held_back <= stream.latency_frames
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=2e-6)


def test_without_enough_context_there_is_a_seam(base: BaseFiles) -> None:
    """The reach is not larger than it need be: one frame less on each side is heard."""
    codec = load_base_codec(base)
    codes = np.random.default_rng(0).integers(0, codec.card, (codec.n_codebooks, 50)).astype(np.int16)
    stream = codec.stream()
    assert isinstance(stream, EncodecStream)
    stream.first_reach = stream.first_right = 1
    parts = [stream.push(codes[:, at : at + 10], last=at == 40) for at in range(0, 50, 10)]
    assert (torch.cat(parts, dim=1) - codec.decode(codes)).abs().max() > 1e-3


@pytest.fixture
def sampler(base: BaseFiles) -> Sampler:
    settings = SampleSettings.model_validate({"duration_sec": 2.5, "window_sec": 1.0, "overlap_sec": 0.4})
    return Sampler.load(base, (), settings)


def test_a_stream_is_the_sampled_piece(sampler: Sampler) -> None:
    take = sampler.sample(["drums"], seeds=[4])[0]
    with sampler.stream("drums", seed=4) as music:
        chunks = list(music)
    torch.testing.assert_close(torch.cat(chunks, dim=1), take.waveform, rtol=0, atol=2e-6)
    assert len(chunks) > 2
    assert music.first_sound_sec is not None and music.first_sound_sec <= music.spent_sec
    assert music.played_sec == pytest.approx(2.5) and music.real_time_factor > 0


def test_a_stream_can_be_turned(sampler: Sampler) -> None:
    straight = sampler.sample(["drums"], seeds=[4])[0].waveform
    with sampler.stream("drums", seed=4) as music:
        chunks = iter(music)
        first = next(chunks)
        music.set_sampling(temperature=0.3, guidance=1.0)
        music.set_prompt("a quiet piano")
        turned = torch.cat([first, *chunks], dim=1)
    n = first.shape[1]
    torch.testing.assert_close(turned[:, :n], straight[:, :n], rtol=0, atol=2e-6)
    assert turned.shape == straight.shape and (turned[:, n:] - straight[:, n:]).abs().max() > 1e-3


@pytest.mark.parametrize("knob", ["temperature", "guidance", "top_k", "top_p", "prompt"])
def test_every_knob_counts_from_the_next_chunk_on(mono_base, knob: str) -> None:
    settings = SampleSettings.model_validate({"duration_sec": 2.0, "precision": "fp32"})
    sampler = Sampler.load(BaseFiles("debug", None, mono_base), (), settings)
    straight = sampler.sample(["drums"], seeds=[4])[0].waveform
    with sampler.stream("drums", seed=4) as music:
        chunks = iter(music)
        first = next(chunks)
        if knob == "prompt":
            music.set_prompt("a quiet piano")
        else:
            music.set_sampling(
                **{knob: {"temperature": [0.2] * 4, "guidance": 1.0, "top_k": [1, 2, 3, 4], "top_p": 0.1}[knob]}
            )
        turned = torch.cat([first, *chunks], dim=1)
    n = first.shape[1]
    assert 0 < n <= 0.5 * 32_000, "the first chunk comes early"
    torch.testing.assert_close(turned[:, :n], straight[:, :n], rtol=0, atol=2e-6)
    assert turned.shape == straight.shape and (turned[:, n:] - straight[:, n:]).abs().max() > 1e-3


def test_a_scale_for_what_is_not_followed_is_refused_while_playing(sampler: Sampler) -> None:
    with sampler.stream("drums", seed=4) as music, pytest.raises(UserError, match="context_guidance is for an adapter"):
        music.set_sampling(context_guidance=4.0)


def test_stories() -> None:
    story = read_prompt_schedule(["0:00 calm piano", "0:15 add drums", "1:02.5 end"])
    assert list(story.starts_sec) == [0, 15, 62.5] and story.texts[1] == "add drums"
    assert story.shares(0.0) == [1, 0, 0] and story.shares(40.0) == [0, 1, 0] and story.shares(99.0) == [0, 0, 1]
    assert story.shares(15.0) == pytest.approx([0.5, 0.5, 0])
    close = PromptSchedule((0.0, 1.0, 1.5), ("a", "b", "c"))
    for tenth in range(40):
        assert sum(close.shares(tenth / 10)) == pytest.approx(1) and min(close.shares(tenth / 10)) >= 0


@pytest.mark.parametrize("lines", [["calm"], ["0:05 late start"], ["0:00 a", "0:00 b"], ["0:00 "], []])
def test_wrong_stories(lines: list[str]) -> None:
    with pytest.raises(UserError):
        read_prompt_schedule(lines)


def test_schedules() -> None:
    falling = StrengthSchedule.read("0:1,10:0", "strength")
    assert [falling.at(second) for second in (-1.0, 0.0, 5.0, 10.0, 99.0)] == [1, 1, 0.5, 0, 0]
    assert not falling.is_constant and str(falling) == "0:1,10:0"
    assert StrengthSchedule.read("0.8", "strength").at(3.0) == 0.8 and str(StrengthSchedule.read("0.8", "x")) == "0.8"
    for wrong in ("", "loud", "0:1,5", "10:1,0:0"):
        with pytest.raises(UserError, match="strength"):
            StrengthSchedule.read(wrong, "strength")
