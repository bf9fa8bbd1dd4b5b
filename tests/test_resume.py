"""A run that is stopped in any way and goes on ends exactly like one that was never stopped."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import warm_processes
from safetensors.torch import load_file
from training_fixtures import quick

from adapters import adapter_files
from configs.errors import UserError
from configs.train import TrainSettings
from data_prep.debug_base import write_debug_base
from finetune import step
from finetune.base_place import base_of_adapter
from finetune.checkpoint import all_steps
from finetune.run_log import read_log
from finetune.stop import Stopped
from finetune.train import train

# Everything that has a state: dropout, average, crops, dropped captions, clips of different lengths.
FULL = {"steps": 8, "lora": {"dropout": 0.1}, "ema_decay": 0.8, "condition_dropout": 0.3, "max_clip_sec": 0.8}
CLOCKS = ("sec", "memory_bytes", "idle_share")

DIES_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
from test_resume import FULL
from training_fixtures import quick
from finetune import checkpoint
from finetune.train import train

plain = checkpoint._write

def write(path, content):
    if "checkpoint-6" in str(path) and path.name.startswith("optimizer"):
        path.write_bytes(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    plain(path, content)

checkpoint._write = write
train(Path(sys.argv[1]), Path(sys.argv[2]), quick(**FULL))
"""


@pytest.fixture(scope="module")
def straight(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run without a stop."""
    run = tmp_path_factory.mktemp("straight") / "run"
    train(tiny_data, run, quick(**FULL))
    return run


def assert_same_run(left: Path, right: Path) -> None:
    for name in ("adapter/adapter_model", "checkpoints/checkpoint-8/adapter", "checkpoints/checkpoint-8/optimizer"):
        ours, theirs = load_file(left / f"{name}.safetensors"), load_file(right / f"{name}.safetensors")
        assert ours.keys() == theirs.keys()
        for key, tensor in ours.items():
            assert torch.equal(tensor, theirs[key]), f"{name}: {key}"
    assert plain_log(left) == plain_log(right)


def plain_log(run: Path) -> list[dict[str, Any]]:
    lines = read_log(run / "log.jsonl")
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in lines]


def test_after_kill_9_in_the_middle_of_saving(tiny_data: Path, straight: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = warm_processes.start(DIES_WHILE_SAVING, tiny_data, run, said=tmp_path / "said")
    process.join(240)
    assert process.exitcode == -signal.SIGKILL, (tmp_path / "said").read_text()
    assert all_steps(run / "checkpoints")[-1] == 4
    assert len(list((run / "checkpoints").glob(".checkpoint-6.*.part"))) == 1
    assert read_log(run / "log.jsonl")[-1]["step"] >= 6 and not (run / "adapter").exists()

    train(tiny_data, run, TrainSettings(), resume=True)  # settings not given again are those of the run
    assert_same_run(run, straight)
    assert list((run / "checkpoints").glob(".*")) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_after_a_signal_in_the_middle_of_a_step(
    number: signal.Signals, code: int, tiny_data: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, parts = step.seed_everything, []

    def interrupted(seed: int, number_of_step: int, rank: int, part: int) -> None:
        parts.append((number_of_step, part))
        if (number_of_step, part) == (3, 0):
            signal.raise_signal(number)
        plain(seed, number_of_step, rank, part)

    monkeypatch.setattr(step, "seed_everything", interrupted)
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as caught:
        train(tiny_data, tmp_path / "run", quick(**FULL))
    assert caught.value.code == code and signal.getsignal(number) is before
    assert all_steps(tmp_path / "run" / "checkpoints")[-1] == 3
    assert (3, 0) in parts and (3, 1) not in parts  # the micro-batch was finished, the step was not
    monkeypatch.undo()
    train(tiny_data, tmp_path / "run", quick(**FULL), resume=True)
    assert_same_run(tmp_path / "run", straight)


def test_other_settings_are_refused_by_name(tiny_data: Path, straight: Path, mono_base: Path) -> None:
    with pytest.raises(UserError, match="not the run that was started here") as caught:
        train(
            tiny_data,
            straight,
            quick(**{**FULL, "seed": 3, "batch_size": 1, "lora": {"dropout": 0.1, "rank": 8}}),
            resume=True,
        )
    what = caught.value.what
    assert "lora.rank: 2 → 8" in what and "seed: 0 → 3" in what
    assert "clips per step (batch_size × accumulation × processes): 4 → 2" in what
    assert "steps, epochs" in caught.value.fix


@pytest.mark.parametrize("change", [('"split": "validation"', '"split": "train"'), ("take 3", "take 4")])
def test_another_dataset_is_refused(tiny_data: Path, straight: Path, tmp_path: Path, change: tuple[str, str]) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_data, other)
    clips = (other / "clips.jsonl").read_text()
    (other / "clips.jsonl").write_text(clips.replace(*change, 1))
    assert clips != (other / "clips.jsonl").read_text()
    with pytest.raises(UserError, match=r"the dataset: .* with other contents"):
        train(other, straight, quick(**FULL), resume=True)


def test_a_song_that_cannot_be_used_and_another_place_are_the_same_dataset(
    tiny_data: Path, straight: Path, tmp_path: Path
) -> None:
    """What is left out is no part of what is learnt, and neither are names of places."""
    moved, run = tmp_path / "moved" / "data", tmp_path / "run"
    shutil.copytree(tiny_data, moved)
    shutil.copytree(straight, run)
    (moved / "rejected.jsonl").write_text('{"what": "track", "where": "broken.wav", "why": "no audio"}\n')
    info = (moved / "prep.yaml").read_text()
    (moved / "prep.yaml").write_text(info.replace("content: '0", "content: '1"))
    (moved / "clips.jsonl").write_text((moved / "clips.jsonl").read_text().replace("song1.wav", "renamed.wav"))
    train(moved, run, quick(**FULL), resume=True)
    steps = [line["step"] for line in read_log(run / "log.jsonl") if line["kind"] == "step"]
    assert steps == list(range(1, 9)) and read_log(run / "log.jsonl")[-1]["kind"] == "proof"


def test_a_local_base_is_known_by_its_fingerprint(
    tiny_data: Path, mono_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(mono_base, here / "models" / "mine")
    there.mkdir()
    monkeypatch.chdir(here)
    run = tmp_path / "run"
    train(tiny_data, run, quick(steps=1, base="models/mine"))

    def steps() -> list[int]:
        return [line["step"] for line in read_log(run / "log.jsonl") if line["kind"] == "step"]

    monkeypatch.chdir(there)  # the name of then means nothing here
    train(tiny_data, run, quick(steps=2, base="models/mine"), resume=True)
    adapter = adapter_files.load(run / "adapter")
    assert base_of_adapter(adapter) == (str(here / "models" / "mine"), None)
    (here / "models" / "mine").rename(there / "elsewhere")
    with pytest.raises(UserError, match="known by its fingerprint"):
        train(tiny_data, run, TrainSettings(), resume=True)
    with pytest.raises(UserError, match="known by its fingerprint"):
        base_of_adapter(adapter)
    write_debug_base(there / "other", seed=9)
    with pytest.raises(UserError, match=r"(?s)not made for the base|the base: .* with other contents"):
        train(tiny_data, run, TrainSettings(steps=3, base="other"), resume=True)
    assert steps() == [1, 2]
    train(tiny_data, run, TrainSettings(steps=3, base="elsewhere"), resume=True)
    train(tiny_data, run, TrainSettings(steps=4), resume=True)
    assert steps() == [1, 2, 3, 4]


def test_a_jump_of_the_learning_rate_is_announced(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(tiny_data, run, quick(steps=3))
    assert "jumps" not in capsys.readouterr().err
    train(tiny_data, run, TrainSettings(steps=5), resume=True)
    assert "steps: 3 → 5; with them the learning rate jumps at step 4 from" in capsys.readouterr().err
    train(tiny_data, run, TrainSettings(), resume=True)
    assert "steps: " not in capsys.readouterr().err.replace("steps  ", "")
    train(tiny_data, run, TrainSettings(steps=2), resume=True)
    assert "5 are done already: nothing is left to train" in capsys.readouterr().err


def test_nothing_to_resume(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run here to go on with"):
        train(tiny_data, tmp_path / "nowhere", quick(), resume=True)
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetune.train.accumulate", lambda *_: (_ for _ in ()).throw(RuntimeError("power cut")))
        with pytest.raises(RuntimeError, match="power cut"):
            train(tiny_data, run, quick())
    with pytest.raises(UserError, match="before its first checkpoint") as caught:
        train(tiny_data, run, quick(), resume=True)
    assert "without --resume" in caught.value.fix
    train(tiny_data, run, quick(steps=1))  # what hardly began may be begun again
    assert [line["step"] for line in read_log(run / "log.jsonl") if line["kind"] == "step"] == [1]


def test_a_run_of_an_older_version_goes_on(tiny_data: Path, tmp_path: Path) -> None:
    """Its config.yaml lacks the settings that came later."""
    run = tmp_path / "run"
    train(tiny_data, run, quick(steps=1))
    config = run / "config.yaml"
    lines = [line for line in config.read_text("utf-8").splitlines() if "prior_prompts" not in line]
    config.write_text("\n".join(lines), "utf-8")
    train(tiny_data, run, quick(steps=2), resume=True)
    assert [line["step"] for line in read_log(run / "log.jsonl") if line["kind"] == "step"] == [1, 2]


def test_a_run_may_go_on_for_longer_and_in_other_micro_batches(tiny_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny_data, run, quick(steps=2))
    first = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    train(tiny_data, run, quick(steps=4, batch_size=1, accumulation=4), resume=True)
    assert [line["step"] for line in read_log(run / "log.jsonl") if line["kind"] == "step"] == [1, 2, 3, 4]
    assert (run / "adapter" / "adapter_model.safetensors").read_bytes() != first


def test_two_at_once_in_one_folder_are_refused(tiny_data: Path, tmp_path: Path) -> None:
    from finetune.run_folder import RunFolder, only_one

    with only_one(RunFolder(tmp_path / "run")), pytest.raises(UserError, match="Another `woodshed train`"):
        train(tiny_data, tmp_path / "run", quick())


def test_the_evaluation_at_the_end_knows_of_all_starts(tiny_data: Path, tmp_path: Path, monkeypatch) -> None:
    known: list[float] = []
    monkeypatch.setattr("finetune.train.evaluate_run", lambda run, *, trained_sec, **more: known.append(trained_sec))
    train(tiny_data, tmp_path / "run", quick(steps=2))
    train(tiny_data, tmp_path / "run", quick(steps=3), resume=True)
    spent = [line["sec"] for line in read_log(tmp_path / "run" / "log.jsonl") if line["kind"] == "step"]
    assert len(spent) == 3 and known == [pytest.approx(sum(spent[:2])), pytest.approx(sum(spent))]
