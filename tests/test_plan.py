"""`woodshed plan`, and `woodshed train --memory`: what fits, shown before anything is loaded and proved by a step."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from training_fixtures import quick, write_dataset

from adapters.family.memory import StepPlan
from adapters.family.musicgen.format import spec_of_sizes
from configs.errors import UserError
from configs.train import TrainSettings
from finetune import cli
from finetune.commands import plan as plan_command
from finetune.commands import train as train_command
from finetune.commands.plan import spec_of_base
from finetune.flags import declare, read
from finetune.memory import adjust, auto
from finetune.memory.fit import Cap
from finetune.memory.predict import GIB, predict
from finetune.memory.step_plan import checkpointed_layers, step_plan
from finetune.run_log import read_log
from finetune.train import train

MEDIUM = spec_of_sizes(1536, 48, 24, 6144)


pytestmark = pytest.mark.usefixtures("fresh_processes")


@pytest.fixture(scope="module")
def data(mono_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("plan") / "data", mono_base)


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("10gb", 10 * GIB), ("6.5 GiB", 13 * GIB // 2), ("8000MB", 8000 * 2**20), ("1g", GIB)]
)
def test_amounts(text: str, n_bytes: int):
    assert auto.parse(text) == n_bytes


@pytest.mark.parametrize("text", ["", "10", "ten gb", "-1gb", "10tb"])
def test_what_is_no_amount_is_refused(text: str):
    with pytest.raises(UserError, match="no amount of memory"):
        auto.parse(text)


def test_fitted_settings_keep_what_was_asked_for():
    asked = TrainSettings(batch_size=4, accumulation=4, lora={"rank": 32}, max_clip_sec=20)  # pyright: ignore
    fitted = auto.fit_settings(asked, MEDIUM, 1000, "bf16", Cap(6 * GIB))
    got = fitted.settings
    assert got.batch_size * got.accumulation == 16 and got.lora.rank == 32 and got.max_clip_sec == 20
    again = step_plan(got, MEDIUM, fitted.option.plan.weights, "bf16", 1000)
    assert again == fitted.option.plan
    assert Cap(6 * GIB).holds(predict(again))
    assert asked.base_weights == "auto"  # the caller's settings are left alone


def test_weights_that_were_named_stay():
    asked = TrainSettings(base_weights="nf4")
    fitted = auto.fit_settings(asked, MEDIUM, 1500, "bf16", Cap(80 * GIB))
    assert {option.plan.weights for option in fitted.table} == {"nf4"}


@pytest.mark.parametrize(
    ("settings", "layers"), [({}, 48), ({"checkpointing": False}, 0), ({"checkpointed_layers": 7}, 7)]
)
def test_recomputed_layers_of_settings(settings: dict, layers: int):
    assert checkpointed_layers(TrainSettings(**settings), 48) == layers


def test_true_shapes_need_no_files():
    shape = spec_of_base(TrainSettings(base="facebook/musicgen-stereo-large"))
    assert shape == spec_of_sizes(2048, 48, 32, 8192, channels=2)


def test_the_starter_is_no_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "starter").mkdir()
    monkeypatch.chdir(tmp_path)
    assert spec_of_base(TrainSettings(base="starter")).n_codebooks == 4


def test_the_shape_of_a_folder_is_that_of_its_weights(mono_base: Path, stereo_base: Path):
    from adapters.family.load import load_lm
    from adapters.family.memory import memory_of
    from data_prep.base_files import resolve_base
    from finetune.memory.simulate import held_tensors

    for base in (mono_base, stereo_base):
        lm = load_lm(resolve_base(str(base)))
        held = sum(tensor.nbytes for tensor in held_tensors(lm))
        spec = spec_of_base(TrainSettings(base=str(base)))
        assert memory_of(spec).weight_bytes(StepPlan(spec, "fp32", "fp32")) == held


def test_the_table(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "140")
    words = ["plan", str(data), "--base", "facebook/musicgen-medium", "--memory", "6gb", "--rank", "32"]
    words += ["--optim.betas", "[0.8, 0.9]", "--lora.targets", "q,v"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    rows = [line for line in said.splitlines() if " of 48" in line]
    assert "→" in rows[0] and len(rows) == 8 and all(" 32 " in row for row in rows)
    peaks = [float(row.split("│")[-3]) for row in rows if "too large" not in row]
    assert peaks and max(peaks) <= 6
    command = next(line for line in said.splitlines() if line.startswith("next: "))
    assert shlex.split(command)[1:5] == ["woodshed", "train", str(data), "runs/NAME"]
    line = read(declare("train", "", train_command), shlex.split(command)[3:])
    assert line.settings == read(declare("plan", "", plan_command), words[1:]).settings, "the plan, and nothing else"


def test_no_memory_given_and_too_little(data: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["plan", str(data)]) == 2
    assert "--memory 8gb" in capsys.readouterr().err
    assert cli.main(["plan", str(data), "--base", "facebook/musicgen-large", "--memory", "1gb"]) == 2
    assert "Nothing fits into 1.0 GiB" in capsys.readouterr().err


def test_plan_needs_no_weights(data: Path):
    """Nothing of the base is here: its sizes are known, and the host is measured on a narrow model."""
    assert cli.main(["plan", str(data), "--base", "facebook/musicgen-small", "--memory", "8gb"]) == 0


def said_by(run_folder: Path, settings: TrainSettings, data: Path, capsys: pytest.CaptureFixture[str]) -> str:
    train(data, run_folder, settings)
    return capsys.readouterr().err


def test_training_under_a_cap_measures_first(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    said = said_by(tmp_path / "run", quick(steps=2, memory="200mb", checkpointing=True), data, capsys)
    assert "memory of a step on the longest clips" in said and "adjusted" not in said
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]
    assert saved["checkpointing"] is False  # there was room for everything
    assert saved["batch_size"] * saved["accumulation"] == 4 and saved["base_weights"] == "fp32"
    steps = [line for line in read_log(tmp_path / "run" / "log.jsonl") if line["kind"] == "step"]
    assert len(steps) == 2 and all(0 <= line["idle_share"] < 1 and line["clips"] == 4 for line in steps)


def test_the_prediction_holds_on_the_run_itself(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """±10 % of what is measured with the run's own clips, base and adapter."""
    seen = []
    plain = adjust.words_of
    monkeypatch.setattr(
        adjust, "words_of", lambda measured, bounds: seen.append((measured, bounds)) or plain(measured, bounds)
    )
    train(data, tmp_path / "run", quick(steps=1, memory="200mb"))
    (measured, bounds) = seen[0]
    assert abs(predict(bounds.plan).peak / measured.peak - 1) < 0.1


def test_a_prediction_that_was_off_is_adjusted_once(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    optimistic = adjust.fitted_to

    def generous(settings, files, clips, precision, cap, infos):
        return optimistic(settings, files, clips, precision, replace(cap, total=cap.total * 100), infos)

    monkeypatch.setattr(adjust, "fitted_to", generous)
    monkeypatch.setattr("finetune.train.fitted_to", generous)
    smallest = StepPlan(spec_of_base(TrainSettings(base=str(data_base(data)))), "fp32", "fp32", 2, 1, 50, rank=2)
    cap = predict(smallest).peak * 1.12
    said = said_by(tmp_path / "run", quick(steps=2, memory=f"{cap / 2**20:.4f}mb"), data, capsys)
    assert "adjusted: micro-batches of 1, " in said


def data_base(data: Path) -> Path:
    return Path(yaml.safe_load((data / "prep.yaml").read_text())["base"]["id"])


def test_a_cap_is_set_on_a_gpu(monkeypatch: pytest.MonkeyPatch):
    fractions = []
    properties = type("Properties", (), {"total_memory": 16 * GIB})
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", fractions.append)
    auto.limit_process(Cap(8 * GIB))
    assert fractions == [Cap(8 * GIB).tensors / (16 * GIB)] and 0.45 < fractions[0] < 0.5
