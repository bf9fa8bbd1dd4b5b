"""`woodshed sample` from the command line: files, tags, names, adapters, pipes and mistakes."""

import codecs
import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from adapter_fixtures import write_adapter
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters import adapter_files, lora
from adapters.audio_out import Levels, endless_wav_header, pcm16, slug, take_name, write_piece
from adapters.family.load import load_lm
from adapters.low_rank import LowRank
from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.debug_base import write_debug_base
from finetune.cli import main
from finetune.sampling.line import _adapters, read_prompts

Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return lambda *words: main(["sample", "--duration", "0.6", *words])


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """What plain peft would write: no woodshed.json."""
    lm = load_lm(resolve_base("debug"))
    draw = torch.Generator().manual_seed(0)
    updates = {}
    for name in lora.matched_modules(lm, ["attention", "ffn"]):
        linear: Any = lm.get_submodule(name)
        rows, columns = linear.weight.shape
        updates[name] = LowRank(torch.randn(2, columns, generator=draw), torch.randn(rows, 2, generator=draw), 2.0)
    folder = tmp_path / "runs" / "mine" / "adapter"
    folder.mkdir(parents=True)
    from safetensors.torch import save_file

    from adapters import peft_layout

    save_file(peft_layout.to_tensors(updates), folder / adapter_files.WEIGHTS)
    config = peft_layout.to_config(updates, base_id="debug", revision=None)
    (folder / adapter_files.CONFIG).write_text(json.dumps(config))
    return folder


def made_by(path: Path) -> dict:
    with soundfile.SoundFile(path) as file:
        return json.loads(file.comment)


def samples(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


def test_files_names_and_tags(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--base", "debug", "Calm piano!", "loud drums", "--seed", "5", "--out", "out", "--format", "flac") == 0
    first, second = Path("out/calm-piano-s5.flac"), Path("out/loud-drums-s6.flac")
    assert samples(first).shape == samples(second).shape == (19_200,)
    made = made_by(second)
    assert (made["prompt"], made["seed"], made["base"], made["duration_sec"]) == ("loud drums", 6, "debug", 0.6)
    said = capsys.readouterr().out
    assert str(first) in said and "peak" in said and "× real time" in said


def test_nothing_is_overwritten_and_seeds_hold(run: Run) -> None:
    for _ in range(2):
        assert run("--base", "debug", "x") == 0
    np.testing.assert_array_equal(samples(Path("out/x-s0.wav")), samples(Path("out/x-s0-2.wav")))
    assert run("--base", "debug", "y", "x", "--batch_size", "1") == 0  # x is the second now: its seed is 1
    assert (samples(Path("out/x-s1.wav")) != samples(Path("out/x-s0.wav"))).any()


def test_adapters_and_their_strengths(run: Run, adapter: Path) -> None:
    assert run("--base", "debug", "x", "--out", "base") == 0
    assert run(str(adapter), "x", "--out", "full") == 0
    assert run(str(adapter), "x", "--strength", "0", "--out", "none") == 0
    assert run("--adapter", f"{adapter}@0:0,0.3:0,0.31:1", "x", "--out", "late") == 0
    base, full, none, late = (samples(Path(name, "x-s0.wav")) for name in ("base", "full", "none", "late"))
    np.testing.assert_array_equal(none, base)
    assert np.abs(full - base).max() > 1e-3
    start = int(0.2 * 32_000)
    np.testing.assert_allclose(late[:start], base[:start], atol=1e-5)
    assert np.abs(late - base).max() > 1e-3
    assert made_by(Path("full/x-s0.wav"))["adapters"] == ["mine@1"]
    assert made_by(Path("late/x-s0.wav"))["adapters"] == ["mine@0:0,0.3:0,0.31:1"]


def test_what_was_forced_is_told(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = write_adapter(tmp_path / "mine", write_debug_base(tmp_path / "other", seed=9))
    assert run(str(mine), "x", "--base", "debug") == 2
    assert "does not fit" in capsys.readouterr().err
    assert run(str(mine), "x", "--base", "debug", "--force") == 0
    assert "forced: mine: fingerprint of the weights" in capsys.readouterr().out


def test_loops_stories_continuing(run: Run) -> None:
    assert run("--base", "debug", "funk", "--loop", "--bpm", "240", "--bars", "1") == 0
    assert len(samples(Path("out/funk-s0.wav"))) == 32_000
    assert run("--base", "debug-stereo", "--story", "0:00 calm", "0:00.3 drums") == 0
    assert samples(Path("out/calm-drums-s0.wav")).shape == (19_200, 2)
    assert run("--base", "debug", "--continue", "out/funk-s0.wav", "--from", "0.5") == 0
    assert len(samples(Path("out/piece-s0.wav"))) == 16_000 + 19_200


def test_a_prompt_may_have_a_slash(run: Run) -> None:
    assert run("--base", "debug", "jazz/funk") == 0
    assert run("--base", "debug", "calm", "piano / bass") == 0
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "calm-s0.wav",
        "jazz-funk-s0.wav",
        "piano-bass-s1.wav",
    ]


def test_prompts_from_a_file(run: Run) -> None:
    Path("prompts.txt").write_text("one\n\n two \n", encoding="utf-8")
    assert run("--base", "debug", "--prompts-file", "prompts.txt") == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["one-s0.wav", "two-s1.wav"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_prompts_as_every_editor_saves_them(tmp_path: Path, encoding: str, end: str) -> None:
    text = end.join(["hüpfende Töne", "", "two "])
    mark = codecs.BOM_UTF16_LE if encoding == "utf-16-le" else b""
    (tmp_path / "prompts.txt").write_bytes(mark + text.encode(encoding))
    assert read_prompts(tmp_path / "prompts.txt") == ["hüpfende Töne", "two"]


def test_prompts_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes(b"\xff\x00\x81")
    for name in ("prompts.txt", "gone.txt", "x" * 300):
        with pytest.raises(UserError, match="cannot be read"):
            read_prompts(tmp_path / name)


@pytest.mark.parametrize(
    "prompt", ["x" * 300, "piano and " * 40, "ピアノ" * 100, "a/" * 200, "~nobody/piano", "x" * 5000]
)
def test_prompts_longer_than_a_file_name(run: Run, adapter: Path, prompt: str) -> None:
    assert run("--base", "debug", prompt, "--out", "base") == 0
    assert run(str(adapter), prompt, "--out", "with", "--format", "flac") == 0
    written = [*Path("base").iterdir(), *Path("with").iterdir()]
    assert len(written) == 2
    told = {path.suffix: made_by(path) for path in written}
    assert told[".flac"]["prompt"] == prompt
    whole = told[".wav"]["prompt"] == prompt
    assert whole or (
        prompt.startswith(told[".wav"]["prompt"][:-1]) and told[".wav"]["prompt_characters"] == len(prompt)
    )
    assert whole == (len(prompt.encode()) < 1000) and told[".wav"]["seed"] == 0


def test_texts_too_long_for_a_name_are_named_as_missing(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    long = "y" * 300
    for words in (["--base", long, "x"], [long, "x"], ["--base", "debug", "--adapter", f"{long}@0.5", "x"]):
        assert run(*words) == 2
        assert long in capsys.readouterr().err.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--base", "debug"], "nothing to play"),
        (["no such folder", "x"], "not an adapter"),
        (["runs/mine/adpter", "ballad", "--base", "debug"], "holds no adapter"),
        (["runs\\mine\\adpter@0.5", "--story", "0:00 calm", "--base", "debug"], "holds no adapter"),
        (["--base", "debug", "--adapter", "nowhere", "x"], "no adapter's folder"),
        (["--base", "debug", "x", "--from", "3"], "--continue"),
        (["--base", "debug", "x", "--continue", "gone.wav"], "not there"),
        (["--base", "debug", "x", "--strength", "1"], "needs an adapter"),
        (["--base", "debug", "x", "--continue", "z" * 300], "not there"),
        (["--base", "debug", "x", "--continue", __file__, "--from", "nan"], "nan"),
        (["--base", "debug", "x", "--continue", __file__, "--from", "inf"], "inf"),
        (["--base", "debug", "x", "--window_sec", "10", "--overlap_sec", "20"], "shorter"),
        (["--base", "debug", "x", "--loop", "--play"], "--loop"),
        (["--base", "debug", "x", "--bpm", "100"], "add --loop"),
        (["--base", "debug", "x", "--melody-stems", "rest"], "add --melody FILE"),
        (["--base", "debug", "--story", "calm"], "moment"),
        (["--base", "debug", "x", "--guidence", "2"], "guidance"),
    ],
)
def test_mistakes(run: Run, capsys: pytest.CaptureFixture[str], words: Sequence[str], expected: str) -> None:
    assert run(*words) == 2
    assert expected in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_player_is_looked_for_before_a_model_is_loaded(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert run("--base", "no/such-base", "x", "--play") == 2
    assert "no player was found" in capsys.readouterr().err


def test_a_run_is_no_adapter_but_holds_one(adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "run" / "adapter")
    with pytest.raises(UserError, match="not an adapter") as caught:
        _adapters(Namespace(words=[str(tmp_path / "run"), "x"], adapter=None, base=None, strength=None))
    assert caught.value.fix == f"a run's adapter is inside it: {tmp_path / 'run' / 'adapter'}"


@pytest.mark.slow
def test_piping(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "finetune.cli", "sample", "--base", "debug", "x", "--duration", "3", "--pipe"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    whole = subprocess.run([*words, "raw"], capture_output=True, check=True, env=environment, cwd=tmp_path)
    assert len(whole.stdout) == 3 * 32_000 * 2
    assert b"first sound" in whole.stderr and b"real time" in whole.stderr
    left = subprocess.Popen(
        [*words, "wav"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=tmp_path
    )
    assert left.stdout is not None and left.stdout.read(4) == b"RIFF"
    left.stdout.close()
    _, said = left.communicate(timeout=300)
    assert left.returncode == 0, said.decode()
    assert b"Traceback" not in said and b"Broken" not in said


@pytest.mark.skipif(os.name != "posix", reason="the player is a shell script")
@pytest.mark.parametrize("script", ["cat > heard.wav", "head -c 100 > heard.wav; exec 0<&-"])
def test_playing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A player gets the whole piece; one that is closed in the middle ends the command cleanly."""
    player = tmp_path / "bin" / "ffplay"
    player.parent.mkdir()
    player.write_text(f"#!/bin/sh\n{script}\n")
    player.chmod(0o755)
    monkeypatch.setenv("PATH", f"{player.parent}:{os.environ['PATH']}")
    assert run("--base", "debug", "x", "--play", "--duration", "3") == 0
    heard = Path("heard.wav").read_bytes()
    assert heard[:4] == b"RIFF" and len(heard) == (100 if "head" in script else 44 + 3 * 32_000 * 2)


@given(st.text('aü緩𝄞"\\ ', min_size=400, max_size=2000) | st.just('"\n' * 900))
@settings(max_examples=20, deadline=None)
def test_tags_are_never_lost(prompt: str) -> None:
    with TemporaryDirectory() as folder:
        path = take_name(Path(folder), slug(prompt), "wav")
        write_piece(path, prompt, torch.zeros(1, 9), 32_000, {"prompt": prompt, "base": "b", "seed": 7})
        told = made_by(path)
    assert told["seed"] == 7 and (told["prompt"] == prompt or told["prompt"].endswith("…"))


@pytest.mark.skipif(os.name != "posix", reason="the player is a shell script")
@pytest.mark.parametrize("script", ["exit 3", "cat > /dev/null; exit 3", "head -c 50000 > /dev/null; exit 3"])
@pytest.mark.parametrize("out", [None, "kept"])
def test_a_player_that_fails_costs_no_music(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: str, out
) -> None:
    player = tmp_path / "bin" / "ffplay"
    player.parent.mkdir()
    player.write_text(f"#!/bin/sh\n{script}\n")
    player.chmod(0o755)
    monkeypatch.setenv("PATH", f"{player.parent}:{os.environ['PATH']}")
    words = ["--base", "debug", "x", "y", "--play", "--duration", "2"]
    assert run(*words, *(["--out", out] if out else [])) == 2
    said = capsys.readouterr().err
    assert "ended with code 3" in said and "The music is kept" in said
    written = sorted(Path(out or "out").iterdir())
    assert [path.name for path in written] == ["x-s0.wav", "y-s1.wav"]
    assert all(len(samples(path)) == 64_000 for path in written)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e9", "0:nan", "inf:1", "0:1,nan:0", "0:1,10:inf", "101", ""])
def test_strengths_that_are_no_numbers(run: Run, adapter: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert run(str(adapter), "x", "--strength", text) == 2
    assert "--strength" in capsys.readouterr().err
    assert run(f"{adapter}@{text}", "x") == 2
    assert main(["merge", f"{adapter}@{text}", "merged"]) == 2
    assert main(["blend", str(adapter), "--scale", text or "nan", "--out", "blended"]) == 2
    assert not Path("out").exists() and not Path("merged").exists() and not Path("blended").exists()


def test_names_levels_and_pcm(tmp_path: Path) -> None:
    assert slug("Slow ballad, piano / 80's?") == "slow-ballad-piano-80-s"
    assert slug("…") == "piece" and slug("緩い バラード") == "緩い-バラード" and len(slug("word " * 99)) <= 60
    assert len(slug("ピアノ" * 99).encode()) <= 200 and slug("ピ" * 99) == "ピ" * 60 and slug("𝄞a" * 60).endswith("a")
    (tmp_path / "a.wav").touch()
    assert [take_name(tmp_path, "a", "wav").name for _ in range(3)] == ["a-2.wav", "a-3.wav", "a-4.wav"]
    taken = take_name(tmp_path / "new", "a", "wav")
    with pytest.raises(ValueError, match="not numbers"):
        write_piece(taken, "a", torch.full((1, 9), float("nan")), 32_000, {})
    assert list(taken.parent.iterdir()) == []
    audio = torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.25, -2.0]])
    assert np.frombuffer(pcm16(audio), "<i2").tolist() == [16384, 0, -32767, 8192, 32767, -32767]
    assert Levels.of(audio).samples_over == 2 and "limited" in str(Levels.of(audio))
    assert "silent" in str(Levels.of(torch.zeros(1, 9)))
    assert len(endless_wav_header(32_000, 2)) == 44
