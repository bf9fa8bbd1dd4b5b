"""What a person can get wrong around codecs: one sentence each, exit code 2, nothing written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from codec_models import write_codec

from adapters.merge import merge
from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.codec.registry import load_base_codec, load_codec
from data_prep.codec.resolve import resolve_codec
from data_prep.write_audio import write_audio
from finetune import cli

RATE_HZ = 32_000


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    time = np.arange(RATE_HZ) / RATE_HZ
    for number in range(2):
        tone = 0.3 * np.sin(2 * np.pi * (220 + 110 * number) * time)
        write_audio(folder / f"song {number}.wav", tone[None].astype(np.float32), RATE_HZ)
    return folder


@pytest.fixture(scope="module")
def broken(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same songs, one of them with samples that are no numbers."""
    import soundfile

    folder = tmp_path_factory.mktemp("broken")
    shutil.copytree(songs, folder, dirs_exist_ok=True)
    audio = np.full(RATE_HZ, 0.1, np.float32)
    audio[5_000:5_100] = np.nan
    soundfile.write(folder / "song 1.wav", audio, RATE_HZ, subtype="FLOAT")
    return folder


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The error of `woodshed codec …`, in one line."""
    assert cli.main(["codec", *words]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_unknown_codecs(songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out"), "--seconds", "1"]
    nowhere = told(capsys, "report", str(songs), "--codec", str(tmp_path / "nowhere"), *out)
    assert "nowhere" in nowhere and "next:" in nowhere
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({"model_type": "vocoder"}))
    other = told(capsys, "report", str(songs), "--codec", str(tmp_path / "other"), *out)
    assert "vocoder" in other or "other" in other
    (tmp_path / "other" / "config.json").write_text("no json")
    assert "cannot be read" in told(capsys, "report", str(songs), "--codec", str(tmp_path / "other"), *out)
    assert not (tmp_path / "out").exists()


def test_songs_with_samples_that_are_not_numbers(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tune = told(capsys, "tune", str(broken), str(tmp_path / "tune"), "--codec", "debug", "--steps", "1")
    assert "two songs" in tune and "song 1.wav" in tune
    out = tmp_path / "report"
    words = ["report", str(broken), "--codec", "debug", "--out", str(out), "--seconds", "1", "--players", "0"]
    assert cli.main(["codec", *words]) == 0
    report = json.loads((out / "report.json").read_text())
    assert [passage["song"] for passage in report["passages"]] == ["song 0.wav"]
    assert "song 1.wav" in report["left_out"][0]


def test_a_prepared_dataset_is_not_songs(songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "prep.yaml").write_text("format: woodshed-dataset\n")
    for words in (["report", str(data)], ["tune", str(data), str(tmp_path / "out")],
                  ["train", str(data), str(tmp_path / "out")],
                  ["tune", str(songs), str(tmp_path / "out"), "--other", str(data)]):  # fmt: skip
        assert "recordings themselves" in told(capsys, *words)
    assert "nowhere" in told(capsys, "tune", str(tmp_path / "nowhere"), str(tmp_path / "out"))


def test_a_codec_whose_numbers_are_not_the_language_model_s(mono_base: Path, tmp_path: Path) -> None:
    """Every number that both have; a rate that differs would play everything at another pitch."""
    from dataclasses import replace

    files = resolve_base(str(mono_base))
    for change, words in (
        ({"sample_rate_hz": 44_100}, "sample rate 32000 in the codec, 44100 in the language model"),
        ({"hop_samples": 320}, "samples per frame"),
        ({"n_codebooks": 8}, "codebooks 4 in the codec, 8"),
        ({"card": 1024}, "codebook size"),
    ):
        other = replace(files)
        object.__setattr__(other, "spec", replace(files.spec, **change))
        with pytest.raises(UserError, match=words):
            load_base_codec(other)
    assert load_base_codec(files).sample_rate_hz == 32_000


def test_mono_for_a_stereo_codec(tmp_path: Path) -> None:
    write_codec(tmp_path / "codec", "encodec-48")
    with pytest.raises(UserError, match="reads 2 channels, the audio has 1"):
        load_codec(resolve_codec(str(tmp_path / "codec"), channels=1))


def test_a_decoder_for_another_codec(
    songs: Path, mono_base: Path, stereo_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_codec(tmp_path / "dac", "dac-16")
    words = ["codec", "tune", str(songs), str(tmp_path / "out"), "--codec", str(tmp_path / "dac"), "--steps", "1"]
    assert cli.main([*words, "--device", "cpu"]) == 0
    decoder = str(tmp_path / "out" / "decoder.safetensors")
    capsys.readouterr()
    sample = ["sample", "drums", "--base", str(mono_base), "--decoder", decoder, "--out", str(tmp_path / "sampled")]
    assert cli.main([*sample, "--duration_sec", "0.5", "--device", "cpu"]) == 2
    assert "tuned for another codec" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match="tuned for another codec"):
        merge(resolve_base(str(stereo_base)), (), tmp_path / "merged", decoder=Path(decoder))
    assert not (tmp_path / "merged").exists() and not (tmp_path / "sampled").exists()
