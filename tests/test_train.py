import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from training_fixtures import TRIGGER, quick, write_dataset

from adapters import adapter_files
from adapters.conditions import Conditions
from adapters.family.load import load_lm
from adapters.lora import attach_updates
from adapters.pattern import IGNORE
from adapters.sampler import Sampler
from configs.errors import UserError
from configs.sample import SampleSettings
from data_prep.base_files import resolve_base
from data_prep.debug_base import write_debug_base
from data_prep.prepared import PreparedDataset
from finetune import cli, step
from finetune.checkpoint import all_steps
from finetune.proof import prove
from finetune.run_log import read_log
from finetune.train import train

pytestmark = pytest.mark.usefixtures("fresh_processes")


def of_kind(run: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_log(run / "log.jsonl") if line["kind"] == kind]


def test_the_command_from_dataset_to_adapter(
    tiny_data: Path, mono_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["train", str(tiny_data), str(run), "--device", "cpu", "--steps", "8", "--batch_size", "2", "--rank", "4"]
    words += ["--accumulation", "2", "--lr", "0.02", "--checkpointing", "false", "--max_clip_sec", "1"]
    words += ["--eval.every_steps", "4", "--checkpoint.every_steps", "3", "--checkpoint.keep", "1"]
    words += ["--prior_share", "0"]
    assert cli.main([*words, "--preview.every_steps", "4", "--preview.duration_sec", "0.2"]) == 0
    said = capsys.readouterr().err
    assert "8 self attention, 8 cross attention, 4 feed-forward, 1 text projection" in said
    assert "PeftModel.from_pretrained" in said and "loaded afresh it gives the same logits" in said

    names = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    files = {"config.yaml", "versions.json", "log.jsonl", "report.html"}
    assert names == files | {"checkpoints", "samples", "adapter", "tensorboard"}
    assert all_steps(run / "checkpoints") == [8]

    steps = of_kind(run, "step")
    assert [line["step"] for line in steps] == list(range(1, 9))
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.5 and all(line["clips"] == 4 for line in steps)
    assert steps[0]["loss"] == pytest.approx(sum(steps[0]["codebooks"]) / 4)
    evaluations = of_kind(run, "eval")
    assert [line["step"] for line in evaluations] == [4, 8]
    assert evaluations[-1]["loss"] < evaluations[0]["loss"] < evaluations[0]["base_loss"]
    assert [line["step"] for line in of_kind(run, "preview")] == [0, 4, 8]

    adapter = adapter_files.load(run / "adapter")
    told = adapter.woodshed
    assert told is not None and told.held_out is not None and told.data is not None and told.training is not None
    assert told.held_out.adapter == pytest.approx(evaluations[-1]["loss"]) and told.held_out.n_clips == 2
    assert told.trigger == TRIGGER and told.data.n_clips == 5 and told.training.steps == 8
    assert (
        str(tmp_path)
        not in (run / "adapter" / "woodshed.json").read_text() + (run / "adapter" / "README.md").read_text()
    )
    samples = {path.name for path in (run / "adapter" / "samples").iterdir()}
    assert samples == {"01.flac", "01-base.flac", "02.flac", "02-base.flac"}
    proof = of_kind(run, "proof")[0]
    assert proof["held_out"] and min(proof["divergence"]) > 0 and len(proof["norms"]) == 4

    saved = yaml.safe_load((run / "config.yaml").read_text())["train"]
    assert saved["base"] == str(mono_base) and saved["lora"]["rank"] == 4  # the dataset's own base was filled in
    versions = json.loads((run / "versions.json").read_text())
    assert torch.__version__.startswith(versions["packages"]["torch"]) and versions["clips_per_step"] == 4
    assert (run / "report.html").read_text().count("<audio") == 6


@pytest.mark.parametrize(
    "more",
    [
        {"lora": {"dora": True, "rslora": True, "plus_ratio": 4.0}, "checkpointing": True},
        {"lora": {"init": "pissa"}, "ema_decay": 0.5},
        {"base_weights": "nf4", "optim": {"name": "adamw8bit"}},
        {"base_weights": "int8", "lora": {"dropout": 0.1}, "checkpointing": True},
        {"precision": "bf16"},
        {"precision": "bf16", "base_weights": "fp32"},
    ],
    ids=["dora", "pissa-ema", "nf4", "int8", "bf16", "autocast"],
)
def test_every_way_of_training_ends_in_an_adapter_that_loads_the_same(
    more: dict[str, Any], tiny_data: Path, tmp_path: Path
) -> None:
    train(tiny_data, tmp_path / "run", quick(steps=3, **more))
    assert of_kind(tmp_path / "run", "proof")[0]["fresh_difference"] < 5e-2
    losses = [line["loss"] for line in of_kind(tmp_path / "run", "step")]
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert all(
        update.a.dtype == torch.float32 for update in adapter_files.load(tmp_path / "run" / "adapter").updates.values()
    )


def test_one_clip_is_learnt_by_heart_and_played_back(tmp_path: Path) -> None:
    base = write_debug_base(tmp_path / "base", hidden=128, heads=4, ffn=256)
    data = write_dataset(tmp_path / "data", base, train=(24,), validation=())
    settings = quick(
        steps=90,
        batch_size=1,
        accumulation=1,
        condition_dropout=0.0,
        lora={"rank": 16, "alpha": 16.0},
        optim={"lr": 0.01, "warmup_steps": 5},
        checkpoint={"every_steps": 0},
    )
    adapter = train(data, tmp_path / "run", settings)
    assert of_kind(tmp_path / "run", "step")[-1]["loss"] < 0.02

    lm: Any = load_lm(resolve_base(str(base)))
    attach_updates(lm, adapter_files.load(adapter).updates)
    dataset = PreparedDataset(data)
    row = dataset.clips("train")[0]
    codes = torch.tensor(dataset.codes(row.id)).long()[None]  # [1, K, T]
    states = torch.tensor(dataset.text_state(row.captions[0]))
    inputs, labels = lm.inputs_and_labels(codes, torch.tensor([row.n_frames]))
    said = lm(inputs, Conditions.of_text(states[None], torch.ones(1, len(states), dtype=torch.bool))).argmax(-1)
    assert torch.equal(said[labels != IGNORE], labels[labels != IGNORE])
    greedy = Sampler.around(lm, SampleSettings.model_validate({"temperature": 0.0, "guidance": 1.0}))
    assert (greedy.codes([states], n_frames=row.n_frames)[0] == dataset.codes(row.id)).all()


def test_without_validation_clips_nothing_is_evaluated(
    mono_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "data", mono_base, validation=())
    folder = train(data, tmp_path / "run", quick(steps=2))
    assert "there will be no held-out loss" in capsys.readouterr().err
    assert not of_kind(tmp_path / "run", "eval") and not of_kind(tmp_path / "run", "base")
    told = adapter_files.load(folder).woodshed
    assert told is not None and told.held_out is None and told.training is not None and told.training.steps == 2
    assert of_kind(tmp_path / "run", "proof")[0]["held_out"] is False


def test_the_best_weights_become_the_adapter_and_patience_ends_a_run(tiny_data: Path, tmp_path: Path) -> None:
    """A rate that is far too high makes it worse from the first step on: the best is the first evaluation."""
    more = {"steps": 40, "optim": {"lr": 0.5}, "eval": {"every_steps": 1, "patience": 3}, "checkpoint": {"keep": 1}}
    folder = train(tiny_data, tmp_path / "run", quick(**more))
    losses = [line["loss"] for line in of_kind(tmp_path / "run", "eval")]
    best = losses.index(min(losses)) + 1
    assert len(losses) == best + 3 < 40
    assert all_steps(tmp_path / "run" / "checkpoints") == [best, best + 3]
    told = adapter_files.load(folder).woodshed
    assert told is not None and told.held_out is not None and told.training is not None
    assert told.training.steps == best and told.held_out.adapter == pytest.approx(min(losses))


def test_a_loss_that_is_no_number_stops_the_run_after_saving(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_sums, plain_seed, now = step.codebook_sums, step.seed_everything, []
    monkeypatch.setattr(step, "seed_everything", lambda *of: now.append(of) or plain_seed(*of))

    def broken_in_the_fourth_step(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        _, number, _, part = now[-1]
        return plain_sums(logits, labels) * (float("nan") if (number, part) == (3, 1) else 1.0)

    monkeypatch.setattr(step, "codebook_sums", broken_in_the_fourth_step)
    with pytest.raises(
        UserError, match="loss stopped being a number in step 4; the state before it is saved"
    ) as caught:
        train(tiny_data, tmp_path / "run", quick(checkpoint={"every_steps": 0}, eval={"every_steps": 0}))
    assert caught.value.where.count("clip0") < 3  # those of one micro-batch, which is not the whole step
    assert "lower --optim.lr" in caught.value.fix
    assert all_steps(tmp_path / "run" / "checkpoints") == [3]
    assert [line["step"] for line in of_kind(tmp_path / "run", "step")] == [1, 2, 3]


def test_a_used_folder_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match=r"not empty: it holds letter.txt"):
        train(tiny_data, run, quick())
    (run / "letter.txt").unlink()
    train(tiny_data, run, quick(steps=1))
    before = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    with pytest.raises(UserError, match="holds a run already") as caught:
        train(tiny_data, run, quick(steps=1, seed=5))
    assert "--resume" in caught.value.fix
    assert (run / "adapter" / "adapter_model.safetensors").read_bytes() == before


def test_another_base_is_refused_with_every_difference(tiny_data: Path, stereo_base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="was not made for the base") as caught:
        train(tiny_data, tmp_path / "run", quick(base=str(stereo_base)))
    for words in ("codebooks: dataset 4, base 8", "audio channels: dataset 1, base 2"):
        assert words in caught.value.what
    assert "text width" not in caught.value.what and not (tmp_path / "run").exists()


def test_a_logger_that_is_not_installed_is_named(tiny_data: Path, tmp_path: Path) -> None:
    import importlib.util

    missing = next((n for n in ("wandb", "trackio") if importlib.util.find_spec(n) is None), None)
    if missing is None:
        pytest.skip("both are installed here")
    with pytest.raises(UserError, match=f"{missing} is not installed"):
        train(tiny_data, tmp_path / "run", quick(loggers=[missing]))


def test_the_trained_model_is_gone_when_the_proof_loads_another(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models at once would not fit where one just did."""
    held: list[weakref.ref] = []
    alive: list[bool] = []

    def loading(*args: Any, **more: Any) -> Any:
        lm: Any = load_lm(*args, **more)
        held.append(weakref.ref(lm.decoder.model.decoder.layers[0]))  # its own forward holds it
        return lm

    def proving(*args: Any, **more: Any) -> Any:
        alive.extend(reference() is not None for reference in held)
        return prove(*args, **more)

    monkeypatch.setattr("finetune.train.load_lm", loading)
    monkeypatch.setattr("finetune.finish.prove", proving)
    settings = quick(steps=1, checkpointing=True, preview={"every_steps": 1, "duration_sec": 0.1})
    gc.disable()  # nothing is collected by chance
    try:
        train(tiny_data, tmp_path / "run", settings)
    finally:
        gc.enable()
    assert alive == [False]
