"""Loops come round without a seam, and what goes on from a recording begins where it ends."""

from pathlib import Path

import numpy as np
import pytest
import torch

from adapters.seams import Loop, continue_from, cross_fade
from configs.errors import UserError
from data_prep.base_files import BaseFiles
from data_prep.codec.registry import load_base_codec
from data_prep.write_audio import write_audio

RATE_HZ = 32_000


def music(seconds: float, channels: int = 1) -> torch.Tensor:
    time = torch.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return torch.stack([0.3 * torch.sin(2 * torch.pi * (220 + 30 * c) * time + time**2) for c in range(channels)])


@pytest.mark.parametrize(("bpm", "bars"), [(120.0, 1), (97.3, 2), (33.0, 1)])
def test_a_loop_is_exactly_so_long_and_comes_round(bpm: float, bars: int) -> None:
    loop = Loop(bpm, bars, RATE_HZ)
    played = music(loop.duration_sec + 0.02, 2)
    cut = loop.cut(played)
    assert cut.shape[1] == round(bars * 240 / bpm * RATE_HZ)
    start, end, fade = loop.lead_samples, loop.lead_samples + loop.samples, loop.fade_samples
    # Around the seam a listener hears the very samples that were played after one another …
    torch.testing.assert_close(cut[:, -1], played[:, end - 1])
    torch.testing.assert_close(cut[:, 0], played[:, end])
    # … and behind the fade, the piece as it was.
    torch.testing.assert_close(cut[:, fade:], played[:, start + fade : end])
    steps = torch.cat([cut, cut], dim=1).diff(dim=1).abs().amax()
    assert steps <= 1.5 * played.diff(dim=1).abs().amax()


def test_cross_fades_keep_the_power_of_unlike_music() -> None:
    out, into = torch.randn(1, 32_000), torch.randn(1, 32_000)
    power = cross_fade(out, into).square().view(10, -1).mean(1)
    torch.testing.assert_close(power, torch.ones(10), rtol=0.1, atol=0)


@pytest.mark.parametrize("kind", ["mono", "stereo"])
def test_continuing(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    codec = load_base_codec(BaseFiles("debug", None, request.getfixturevalue(f"{kind}_base")))
    audio = music(3.0, codec.channels)
    write_audio(tmp_path / "song.wav", audio.numpy(), RATE_HZ)
    before = continue_from(tmp_path / "song.wav", 2.505, codec, longest_sec=1.0)
    n = 2 * RATE_HZ + 25 * 640  # whole frames
    assert before.audio.shape == (codec.channels, n)
    torch.testing.assert_close(before.audio, audio[:, :n], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(before.codes, codec.encode([audio[:, n - RATE_HZ : n].contiguous()])[0])
    played = torch.randn(codec.channels, RATE_HZ + 6400)
    joined = before.join(played, RATE_HZ)
    assert joined.shape[1] == n + 6400
    torch.testing.assert_close(joined[:, : n - 1600], before.audio[:, : n - 1600])
    torch.testing.assert_close(joined[:, n:], played[:, RATE_HZ:])


def test_what_cannot_be_continued(mono_base, tmp_path: Path) -> None:
    codec = load_base_codec(BaseFiles("debug", None, mono_base))
    write_audio(tmp_path / "short.wav", music(1.0).numpy(), RATE_HZ)
    (tmp_path / "text.wav").write_text("no audio")
    for path, second in (("short.wav", 5.0), ("short.wav", 0.001), ("text.wav", None)):
        with pytest.raises(UserError):
            continue_from(tmp_path / path, second, codec, 12.0)
