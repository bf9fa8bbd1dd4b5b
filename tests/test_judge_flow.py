"""The whole way from a folder to a stored verdict, on the debug base; and what a person can get wrong."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from training_fixtures import quick, write_dataset

from adapters.adapter_files import load
from adapters.redescribe import samples_of
from configs.errors import UserError
from configs.evaluate import EvaluateSettings, GridSettings
from finetune.checkpoint import kept_weights
from finetune.cli import main
from finetune.judge import after_training
from finetune.judge.after_training import evaluate_run
from finetune.judge.findings import Verdict, from_json
from finetune.judge.flow import judge
from finetune.judge.subject import open_subject
from finetune.sampling.line import recommended_strength
from finetune.train import train

SETTINGS = EvaluateSettings(
    pieces=2, duration_sec=3.2, completions=1, embedding="spectrum", device="cpu", precision="fp32",
    grid=GridSettings(strengths=[0.5, 1.0], finalists=1),
)  # fmt: skip
ONE_STRENGTH = SETTINGS.model_copy(update={"grid": GridSettings(strengths=[1.0], finalists=1)})
FLAGS = ["--pieces", "2", "--duration_sec", "3.2", "--completions", "0", "--embedding", "spectrum"]
FLAGS += ["--grid.strengths", "[1.0]", "--grid.finalists", "1", "--precision", "fp32"]


@pytest.fixture(scope="module")
def data(mono_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged") / "data"
    return write_dataset(folder, mono_base, train=(340, 340), validation=(340, 170))


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("judged-run") / "run"
    train(data, run, quick(steps=4, checkpoint={"every_steps": 0, "keep": 1, "places": 3}))
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_from_run_to_verdict(run: Path, fresh_processes: None) -> None:
    verdict = evaluate_run(run, wanted=True, trained_sec=1.0, settings=SETTINGS, say=lambda line: None)
    assert verdict is not None
    assert {one.id for one in verdict.findings} >= {
        "trust",
        "style",
        "without_trigger",
        "forgetting",
        "health",
        "copying",
    }
    steps = set(kept_weights(run / "checkpoints"))
    assert {2, 3} < steps  # weights alone, at the places of the run
    assert len(verdict.cells) == 2 * len(steps) and [cell.chosen for cell in verdict.cells].count(True) == 1
    assert from_json((run / "evaluation" / "verdict.json").read_text()) == verdict
    page = (run / "evaluation" / "report.html").read_text()
    assert (
        verdict.headline in page and page.count("<audio") >= 8 and "http" not in page.replace("http://www.w3.org", "")
    )
    assert verdict.headline in (run / "report.html").read_text()
    told = load(run / "adapter").woodshed
    assert told is not None and told.evaluation is not None and told.evaluation.headline == verdict.headline
    assert told.recommended_strength == verdict.strength == recommended_strength(run / "adapter")
    assert told.training is not None and told.training.steps == verdict.step
    card = (run / "adapter" / "README.md").read_text()
    assert "What was measured" in card and "recommended" in card and ".wav" not in told.evaluation.model_dump_json()


@pytest.mark.slow
def test_seeds_decide_everything(run: Path, fresh_processes: None) -> None:
    once, again = (judge(run, SETTINGS).verdict for _ in range(2))
    assert [one.text for one in again.findings] == [one.text for one in once.findings] and again.cells == once.cells


def test_an_adapter_that_does_nothing_forgets_and_copies_nothing(
    run: Path, mono_base: Path, fresh_processes: None
) -> None:
    from adapters.adapter_files import save

    adapter = load(run / "adapter")
    assert adapter.woodshed is not None
    still = {name: type(one)(one.a, 0 * one.b, one.alpha, one.rslora, None) for name, one in adapter.updates.items()}
    save(run.parent / "still", still, adapter.woodshed)
    judged = judge(run.parent / "still", ONE_STRENGTH, base=str(mono_base))
    moved = judged.verdict["forgetting"]
    assert moved.estimate is not None and moved.estimate.value == pytest.approx(0, abs=1e-9)
    assert all(cell.kl_nats == 0 for cell in judged.verdict.cells)
    assert "--data" in judged.verdict.notes[0] and judged.verdict["copying"].level == "notice"


def test_the_command(run: Path, capsys: pytest.CaptureFixture[str], fresh_processes: None) -> None:
    before = (run / "adapter" / "woodshed.json").read_text()
    assert main(["evaluate", str(run / "adapter"), "--no-store", "--json", "--out", str(run / "x"), *FLAGS]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "woodshed-verdict"
    assert (run / "adapter" / "woodshed.json").read_text() == before and (run / "x" / "report.html").is_file()
    assert main(["evaluate", str(run), "--listening-test", str(run / "t.html"), *FLAGS]) == 0
    assert "const pages" in (run / "t.html").read_text()


def test_no_tracks_held_out_and_one_song(mono_base: Path, run: Path, tmp_path: Path, fresh_processes: None) -> None:
    alone = write_dataset(tmp_path / "alone", mono_base, train=(340,), validation=())
    judged = judge(run / "adapter", ONE_STRENGTH, data=alone)
    notes = " ".join(judged.verdict.notes)
    assert "No track was held out" in notes and "a single song" in notes
    assert judged.verdict["copying"].numbers["completion_held_out"] is None


def test_what_a_person_can_get_wrong(
    run: Path, tmp_path: Path, stereo_base: Path, capsys: pytest.CaptureFixture[str], fresh_processes: None
) -> None:
    with pytest.raises(UserError, match="There is no adapter folder"):
        open_subject(tmp_path / "nowhere")
    (tmp_path / "half").mkdir()
    shutil.copy(run / "config.yaml", tmp_path / "half")
    with pytest.raises(UserError, match="no adapter yet"):
        open_subject(tmp_path / "half")
    with pytest.raises(UserError, match="does not fit"):
        open_subject(run, base=str(stereo_base))
    stereo = write_dataset(tmp_path / "stereo", stereo_base, train=(60,), validation=())
    with pytest.raises(UserError, match="not made for the base"):
        open_subject(run, data=stereo)
    assert main(["evaluate", str(run), "--prompts", '[""]']) == 2
    assert "prompts" in capsys.readouterr().err


def test_it_is_done_without_asking_only_where_it_is_cheap(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(after_training, "expected_sec", lambda run, settings: 30.0)
    good = Verdict("x", "debug", "Good.", [], [], "", 1, 1.0, "spectrum", {}, 1.0)
    monkeypatch.setattr(after_training, "_evaluate", lambda run, settings, say: good)
    said: list[str] = []
    ask: Any = {"settings": SETTINGS, "say": said.append}
    assert evaluate_run(run, wanted=None, trained_sec=301.0, **ask) is good
    assert evaluate_run(run, wanted=None, trained_sec=299.0, **ask) is None and "more than a tenth" in said[-1]
    assert evaluate_run(run, wanted=False, trained_sec=1e9, **ask) is None
    assert evaluate_run(run, wanted=True, trained_sec=0.0, **ask) is good

    def fails(run: Path, settings: EvaluateSettings, say: object) -> None:
        raise ZeroDivisionError("an accident")

    monkeypatch.setattr(after_training, "_evaluate", fails)
    assert evaluate_run(run, wanted=True, trained_sec=0.0, **ask) is None and "an accident" in said[-1]


def test_samples_are_read_from_a_card_with_care(tmp_path: Path) -> None:
    assert samples_of(tmp_path) == ({}, {})
    for text in ("", "---\n: [\n---", "---\nwidget: 3\n---", "---\nwidget: [{text: a, output: {url: ../x.flac}}]\n---"):
        (tmp_path / "README.md").write_text(text)
        assert samples_of(tmp_path) == ({}, {})
    (tmp_path / "samples").mkdir()
    for name in ("01.flac", "01-base.flac"):
        (tmp_path / "samples" / name).write_bytes(b"")
    (tmp_path / "README.md").write_text("---\nwidget: [{text: a, output: {url: samples/01.flac}}]\n---\n")
    assert samples_of(tmp_path) == ({"a": "samples/01.flac"}, {"a": "samples/01-base.flac"})
