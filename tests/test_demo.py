import errno
import json
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest
from adapter_fixtures import write_adapter

from configs.errors import UserError
from data_prep.safe_write import GOES_ON, disk_error
from finetune.checkpoint import how_to_go_on
from finetune.cli import COMMANDS, main
from finetune.commands.demo import arguments
from finetune.demo.flow import Clock, _recommend, run_demo
from finetune.demo.pictures import REFERENCE_DB, envelope, mel_db, picture
from finetune.demo.plan import PROMPTS, STRENGTH, TRIGGER, Plan, demo_songs
from finetune.sampling.line import recommended_strength


def test_the_songs_are_there_and_small() -> None:
    songs = sorted(demo_songs().glob("*.ogg"))
    assert len(songs) == 10
    assert sum(path.stat().st_size for path in demo_songs().iterdir()) <= 1.5 * 2**20
    assert 2 <= len(list(demo_songs().glob("*.txt"))) <= 3


def test_the_plan_is_one_flow(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "demo", tmp_path / "songs", base="debug", steps=10, play_sec=2.0)
    assert plan.prep().base == plan.train().base == "debug"
    assert plan.prep().captions.trigger == TRIGGER
    assert plan.train().steps == 10
    assert plan.sample().duration_sec == 2
    assert sum(TRIGGER in prompt for prompt in PROMPTS) == 2


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        run_demo(Plan(tmp_path, tmp_path / "songs"))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_demo_with_other_settings_is_left_alone(tmp_path: Path) -> None:
    begun = Plan(tmp_path / "demo", tmp_path / "songs", base="no such base", steps=10)
    with pytest.raises(UserError, match="no such base"):
        run_demo(begun)
    assert json.loads((begun.out / "demo.json").read_text())["steps"] == 10
    with pytest.raises(UserError, match="steps: 10 → 20"):
        run_demo(Plan(begun.out, begun.songs, base="no such base", steps=20))


def test_a_finished_demo_is_not_run_again(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "demo", tmp_path / "songs", base="no such base")
    with pytest.raises(UserError):
        run_demo(plan)
    plan.page.write_text("done")
    assert run_demo(plan) is False
    assert plan.page.read_text() == "done"


def test_the_demo_gives_no_advice_that_it_cannot_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(data: Path, run: Path, *_: object, **__: object) -> None:
        raise disk_error(OSError(errno.ENOSPC, "full", str(run)), again=how_to_go_on(run / "checkpoints"))

    monkeypatch.setattr("finetune.demo.flow.prepare", lambda *_: None)
    monkeypatch.setattr("finetune.demo.flow.train", full)
    with pytest.raises(UserError, match="the disk is full") as caught:
        run_demo(Plan(tmp_path / "demo", tmp_path / "songs", base="debug"))
    assert caught.value.fix == "Free some disk space or choose another disk, then " + GOES_ON


def test_its_adapter_says_how_strong_it_plays(mono_base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "mine", mono_base)
    _recommend(adapter, 1.3)
    assert recommended_strength(adapter) == 1.3
    assert "recommended: 1.3" in (adapter / "README.md").read_text()
    _recommend(adapter, 0.5)
    assert recommended_strength(adapter) == 1.3, "one that was chosen by measure stays"


def test_the_clock_adds_up_over_calls(tmp_path: Path) -> None:
    (tmp_path / "seconds.json").write_text('{"prep": 100.0}')
    clock = Clock(tmp_path / "seconds.json")
    with pytest.raises(KeyboardInterrupt), clock("prep", "preparing"):
        raise KeyboardInterrupt
    assert Clock(tmp_path / "seconds.json").seconds["prep"] > 100


def test_envelope_holds_the_extremes() -> None:
    audio = np.zeros(1000, np.float32)
    audio[[501, 507]] = (0.8, -0.6)
    low, high = envelope(audio, points=10)
    assert (low[5], high[5]) == pytest.approx((-0.6, 0.8))
    assert not low[:5].any()
    assert not high[6:].any()
    assert len(envelope(audio[:3], points=10)[0]) == 10


def test_a_tone_is_a_line_in_its_band() -> None:
    rate_hz = 16_000
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate_hz) / rate_hz).astype(np.float32)
    mel = mel_db(tone, rate_hz).mean(axis=1)
    assert mel.argmax() == mel_db(0.1 * tone, rate_hz).mean(axis=1).argmax()
    assert mel.max() > REFERENCE_DB - 5
    uri = picture(tone[None], rate_hz)
    assert uri.startswith("data:image/png;base64,")
    assert len(uri) < 60_000


def test_it_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "demo" in COMMANDS
    assert main(["demo", "--help"]) == 0
    assert "woodshed-demo" in capsys.readouterr().out


@pytest.mark.slow
def test_the_whole_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prep, train, sample and the page on the demo's own songs, with a base of random weights; then again."""
    words = ["demo", "--out", str(tmp_path / "demo"), "--base", "debug", "--steps", "5", "--seconds", "1"]
    assert main(words) == 0
    page = (tmp_path / "demo" / "report.html").read_text()
    assert page.count("<audio") == 2 * len(PROMPTS) + 2 * 5
    assert "http" not in page
    assert (tmp_path / "demo" / "run" / "adapter" / "adapter_model.safetensors").exists()
    assert recommended_strength(tmp_path / "demo" / "run" / "adapter") == STRENGTH
    made = (tmp_path / "demo" / "report.html").stat().st_mtime_ns
    assert main(words) == 0
    assert "done already" in capsys.readouterr().out
    assert (tmp_path / "demo" / "report.html").stat().st_mtime_ns == made
    (tmp_path / "demo" / "report.html").unlink()
    assert main(words) == 0
    assert (tmp_path / "demo" / "report.html").read_text().count("<audio") == page.count("<audio")


def test_the_command_runs_the_demo_as_planned() -> None:
    parser = ArgumentParser()
    arguments(parser)
    given = parser.parse_args([])
    assert (given.base, given.steps, given.seconds) == (Plan.base, Plan.steps, Plan.play_sec)
