"""`woodshed codec train`: settings, exact resume, the command and its page."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from codec_train_models import KINDS, TINY
from safetensors.torch import load_file

pytest.importorskip("vector_quantize_pytorch", reason="the extra `codec-train`")

from configs.errors import UserError
from data_prep.write_audio import write_audio
from finetune import cli
from finetune.codec_train import learner as learner_module
from finetune.codec_train import quantiser
from finetune.codec_train.options import options
from finetune.codec_train.settings import CodecSettings, strides_for
from finetune.codec_train.train import train

SIZES = [
    *("--steps", "2", "--filters", "2", "--width", "8", "--entries", "8", "--codebooks", "2"),
    *("--batch", "1", "--frame_rate", "250", "--device", "cpu"),
]


@pytest.mark.parametrize(
    ("rate_hz", "frame_rate", "strides"),
    [(32_000, 50.0, (8, 5, 4, 4)), (16_000, 50.0, (5, 4, 4, 4)), (44_100, 44_100 / 512, (8, 4, 4, 4)),
     (24_000, 75.0, (5, 4, 4, 4)), (48_000, 25.0, (6, 5, 4, 4, 4)), (16_000, 4_000.0, (2, 2))],
)  # fmt: skip
def test_strides_make_the_hop(rate_hz: int, frame_rate: float, strides: tuple[int, ...]) -> None:
    assert strides_for(rate_hz, frame_rate) == strides
    assert rate_hz / np.prod(strides) == frame_rate


@pytest.mark.parametrize(
    ("rate_hz", "frame_rate"), [(32_000, 49.0), (44_100, 100.0 / 3), (16_000, 0.0), (22_000, 50.0)]
)
def test_frame_rates_that_no_strides_make_are_refused(rate_hz: int, frame_rate: float) -> None:
    if rate_hz == 44_100:
        assert np.prod(strides_for(rate_hz, frame_rate)) == 1323
        return
    with pytest.raises(UserError, match="cannot be made"):
        strides_for(rate_hz, frame_rate)


def test_settings_that_do_not_go_together_are_said_at_once() -> None:
    with pytest.raises(UserError) as raised:
        replace(TINY, quantiser="grouped", codebook_dim=7, cosine=True, ema=False, expire=2.0).check()
    told = str(raised.value)
    assert all(words in told for words in ("shared by 4 groups", "running means", "expire 0 to below 1"))
    TINY.check()


def test_options_differ_from_the_first_in_one_thing() -> None:
    every = list(options(CodecSettings()))
    assert every[0].settings == CodecSettings() and len({option.name for option in every}) == len(every) == 12
    assert all(option.settings != CodecSettings() and not option.settings.problems() for option in every[1:])
    assert "grouped" not in {option.name for option in options(replace(CodecSettings(), codebook_dim=6))}


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short songs of plucked tones, and one that is too short."""
    folder = tmp_path_factory.mktemp("songs")
    time = np.arange(16_000) / 16_000
    for number, hz in enumerate((220.0, 330.0, 440.0)):
        plucks = 0.5 * np.sin(2 * np.pi * hz * time) * np.exp(-8 * (time % 0.5))
        write_audio(folder / f"song {number}.wav", np.stack([plucks, plucks]).astype(np.float32), 16_000)
    write_audio(folder / "tiny.wav", np.zeros((1, 800), np.float32), 16_000)
    return folder


@pytest.mark.parametrize("kind", ["plain", "learnt", "cosine"])
def test_a_stopped_run_goes_on_exactly(kind: str, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, device = replace(TINY, steps=8, **KINDS[kind]), torch.device("cpu")
    whole = train(songs, tmp_path / "whole", settings, device, every_steps=2)
    assert "tiny.wav" in whole.left_out[0] and len(whole.figures.mel) == 4 and whole.figures.n_frames == 1000
    real: Callable = learner_module.Learner.step

    def stopped(self, batch, step: int, factor: float):
        if step == 5:
            raise KeyboardInterrupt
        return real(self, batch, step, factor)

    monkeypatch.setattr(learner_module.Learner, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(songs, tmp_path / "stopped", settings, device, every_steps=2)
    monkeypatch.setattr(learner_module.Learner, "step", real)
    torch.manual_seed(99)
    with pytest.raises(UserError, match="another card, lr"):
        train(songs, tmp_path / "stopped", replace(settings, lr=1.0, card=32), device, every_steps=2)
    again = train(songs, tmp_path / "stopped", settings, device, every_steps=2)
    for file in ("state.safetensors", "codec/model.safetensors"):
        one, other = load_file(tmp_path / "whole" / file), load_file(tmp_path / "stopped" / file)
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert again.figures == whole.figures and again.best_step == whole.best_step


def test_the_command_trains_what_report_reads(
    songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.codec_report.measure.visqol_available", lambda: False)
    monkeypatch.setattr("finetune.codec_report.run.visqol_available", lambda: False)
    out = tmp_path / "out"
    assert cli.main(["codec", "train", str(songs), str(out), "--quantiser", "hierarchical", *SIZES]) == 0
    told = capsys.readouterr().out
    assert "mel distance" in told and "left out: tiny.wav" in told
    page = (out / "report.html").read_text()
    assert page.count("<audio") == 2 and "hierarchical" not in page and "250 frames" in page
    assert json.loads((out / "figures.json").read_text())["settings"]["quantiser"] == "hierarchical"
    report = ["codec", "report", str(songs), "--codec", str(out / "codec"), "--out", str(tmp_path / "report")]
    assert cli.main([*report, "--seconds", "1", "--passages", "1", "--players", "1", "--device", "cpu"]) == 0
    (ours, _) = json.loads((tmp_path / "report" / "report.json").read_text())["results"]
    assert ours["levels"][-1]["bitrate_bps"] == pytest.approx(250 * 3 * (1 / 4 + 1 / 2))


def test_each_option_is_trained_and_compared(songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [option for option in options(TINY) if option.name in ("as-given", "learnt", "hierarchical")]
    monkeypatch.setattr("finetune.codec_train.run.options", lambda _: few)
    words = ["codec", "train", str(songs), str(tmp_path / "out"), "--each_option", *SIZES]
    assert cli.main(words) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "What each option does" in page and page.count("<audio") == 1 + 3 and "hierarchical" in page
    (tmp_path / "out" / "mine.txt").write_text("keep")
    assert cli.main(words) == 2


def test_what_cannot_be_trained_is_said(
    songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(*words: str) -> str:
        assert cli.main(["codec", "train", *words]) == 2
        return capsys.readouterr().err

    out = str(tmp_path / "out")
    assert "no --codec" in told(str(songs), out, "--codec", "starter")
    assert "cannot be made" in told(str(songs), out, "--frame_rate", "49")
    assert "running means" in told(str(songs), out, "--cosine", "--codebook", "learnt")
    one = tmp_path / "one"
    write_audio(one / "song.wav", np.zeros((1, 16_000), np.float32), 16_000)
    assert "two songs" in " ".join(told(str(one), out).split())
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("dear")
    assert "holds other things" in told(str(songs), str(tmp_path / "taken"))
    monkeypatch.setitem(__import__("sys").modules, "vector_quantize_pytorch", None)
    assert "codec-train" in told(str(songs), out)
    with pytest.raises(UserError, match="vector-quantize-pytorch"):
        quantiser.vector_quantize()
