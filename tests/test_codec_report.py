"""`woodshed codec report`: a small folder of songs, two codecs, the page and its figures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from codec_models import write_codec

from configs.errors import UserError
from data_prep.codec_measures.spectral import MEASURE_RATE_HZ
from data_prep.write_audio import write_audio
from finetune import cli
from finetune.codec_report.contestants import CodecContestant, OpusContestant, load_contestants, thinned
from finetune.codec_report.measure import measure_all
from finetune.codec_report.page import heard_levels, worst_first
from finetune.codec_report.passages import choose_passages


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chord of five seconds and noise of three, both stereo, and a file that is no audio."""
    folder = tmp_path_factory.mktemp("songs")
    time = np.arange(5 * MEASURE_RATE_HZ) / MEASURE_RATE_HZ
    chord = sum(0.2 * np.sin(2 * np.pi * hz * time) for hz in (220.0, 277.2, 329.6))
    write_audio(folder / "<b>chord.wav", np.stack([chord, chord]).astype(np.float32), MEASURE_RATE_HZ)
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 3 * MEASURE_RATE_HZ)).astype(np.float32)
    write_audio(folder / "noise.wav", noise, MEASURE_RATE_HZ)
    (folder / "broken.mp3").write_bytes(b"ID3 not at all")
    return folder


def test_the_command_writes_a_page_and_its_figures(
    songs: Path, mono_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("finetune.codec_report.measure.visqol_available", lambda: False)
    monkeypatch.setattr("finetune.codec_report.run.visqol_available", lambda: False)
    write_codec(tmp_path / "dac", "dac-44")
    line = f"codec report {songs} --codec {mono_base} --codec {tmp_path / 'dac'} --out {tmp_path / 'out'}"
    words = [*line.split(), "--seconds", "2", "--passages", "3", "--players", "1", "--device", "cpu"]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert "SI-SDR" in told and "visqol-python" in told

    report = json.loads((tmp_path / "out" / "report.json").read_text())
    musicgen, dac, opus = report["results"]
    assert [level["name"] for level in musicgen["levels"]] == ["1 codebook", *(f"{n} codebooks" for n in (2, 3, 4))]
    assert musicgen["frame_rate"] == 50 and dac["frame_rate"] == 44_100 / 512
    assert dac["levels"][-1]["bitrate_bps"] == pytest.approx(9 * 6 * 44_100 / 512)
    assert dac["levels"][-1]["compression"] == pytest.approx(16 * 44_100 / dac["levels"][-1]["bitrate_bps"])
    assert opus["levels"][0]["bitrate_bps"] < opus["levels"][1]["bitrate_bps"] < opus["levels"][2]["bitrate_bps"]
    assert len(report["passages"]) == 3 and "broken.mp3" in report["left_out"][0]
    for result in report["results"]:
        for level in result["levels"]:
            mean = np.mean([one["mel_distance"] for one in level["passages"]])
            assert level["mean"]["mel_distance"] == pytest.approx(mean) and level["mean"]["visqol"] is None

    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<audio") == 1 + 4 + 4 + 3 and "&lt;b&gt;" in page and "<b>chord" not in page
    assert "http" not in page.replace("http://www.w3.org", ""), "one page, nothing fetched"
    again = ["codec", "report", str(songs), "--codec", "debug", "--out", str(songs)]
    assert cli.main(again) == 2 and "holds other things" in capsys.readouterr().err


def test_a_lossless_codec_would_have_no_distance(songs: Path) -> None:
    class Perfect(OpusContestant):
        def play(self, audio):
            yield from (audio, 0.5 * audio, audio)

    contestant = Perfect(2)
    contestant.sample_rate_hz = MEASURE_RATE_HZ
    passages, _ = choose_passages(songs, seconds=2.0, at_most=2)
    perfect, quieter, _ = measure_all([contestant], passages)[0].levels
    assert perfect.mean.mel_distance == 0 and perfect.mean.si_sdr_db > 80
    assert quieter.mean.mel_distance > 0.5 and quieter.mean.si_sdr_db > 80, "SI-SDR forgives a gain, mel does not"


def test_passages_are_spread_over_all_songs(songs: Path) -> None:
    every, left_out = choose_passages(songs, seconds=1.0, at_most=100)
    assert len(every) == 8 and len(left_out) == 1
    few, _ = choose_passages(songs, seconds=1.0, at_most=2)
    assert {passage.song for passage in few} == {"<b>chord.wav", "noise.wav"}
    audio = every[0].read(8_000, 1)
    assert audio.shape == (1, 8_000)
    with pytest.raises(UserError, match="nothing to measure"):
        choose_passages(songs, seconds=60.0, at_most=2)


def test_codecs_are_named_once_and_none_is_said(mono_base: Path) -> None:
    assert len(load_contestants([str(mono_base), str(mono_base)], torch.device("cpu"))) == 1
    with pytest.raises(UserError, match="at least one codec"):
        load_contestants([], torch.device("cpu"))


def test_codes_are_counted_over_all_passages(songs: Path, mono_base: Path) -> None:
    (contestant,) = load_contestants([str(mono_base)], torch.device("cpu"))
    assert isinstance(contestant, CodecContestant)
    passages, _ = choose_passages(songs, seconds=1.0, at_most=3)
    (result,) = measure_all([contestant], passages)
    assert contestant.use.n_frames == 3 * 50
    assert result.levels[-1].codes_in_use == (contestant.use.counts > 0).mean()
    assert result.levels[0].bitrate_efficiency == pytest.approx(contestant.use.entropy_bits()[0] / 6)
    distances = [one.mel_distance for one in result.levels[-1].passages]
    assert distances[worst_first([result])[0]] == max(distances)


def test_many_levels_are_thinned_out() -> None:
    assert thinned(tuple(range(1, 10))) == tuple(range(1, 10))
    assert thinned(tuple(range(1, 33))) == (1, 2, 4, 8, 16, 32)
    assert thinned(tuple(range(2, 26, 2))) == (2, 4, 8, 16, 24)
    assert heard_levels(3) == [0, 1, 2] and heard_levels(9) == [0, 3, 5, 8]


@pytest.mark.parametrize(
    ("words", "readers"),
    [
        (["report", "songs", "--steps", "3"], "--steps would change nothing: it is for `codec tune` and `codec train`"),
        (["tune", "songs", "out", "--filters", "4"], "--filters would change nothing: it is for `codec train` only"),
        (["train", "songs", "out", "--keep_old"], "--keep_old would change nothing: it is for `codec tune` only"),
    ],
)
def test_flags_of_other_actions_are_refused(words: list[str], readers: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["codec", *words]) == 2
    assert readers in capsys.readouterr().err


@pytest.mark.parametrize("action", ["tune", "train"])
def test_a_stopped_training_says_that_it_goes_on(
    action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"finetune.commands.codec._{action}", stopped)
    assert cli.main(["codec", action, str(tmp_path), str(tmp_path / "out")]) == 130
    assert "The same command goes on" in capsys.readouterr().err
