"""Magenta RealTime over a base of fewer bits, in two processes, and its adapters under the commands for files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_distributed import train_in_two
from torch.testing import assert_close
from training_fixtures import quick, write_dataset

from adapters import adapter_files
from data_prep.prepared import PreparedDataset
from finetune.batches import Stream, clips_of
from finetune.cli import main
from finetune.run_log import read_log
from finetune.train import train

LORA = {"rank": 4, "targets": ["attention", "ffn", "depth"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("mrt2") / "set", "debug-mrt2", train=(30, 24), validation=(20,))


@pytest.fixture(scope="module")
def adapters(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [train(data, folder / f"seed{seed}", quick(lora=LORA, steps=2, seed=seed)) for seed in range(2)]


@pytest.mark.parametrize(("weights", "dora"), [("int8", False), ("nf4", True)])
def test_a_base_of_fewer_bits_learns(data: Path, tmp_path: Path, weights: str, dora: bool) -> None:
    adapter = train(data, tmp_path / "run", quick(lora=LORA | {"dora": dora}, steps=2, base_weights=weights))
    assert len(adapter_files.load(adapter).updates) == 32
    log = [line for line in read_log(tmp_path / "run" / "log.jsonl") if line["kind"] == "eval"]
    base = next(line for line in read_log(tmp_path / "run" / "log.jsonl") if line["kind"] == "base")
    assert np.mean(log[-1]["codebooks"]) < np.mean(base["codebooks"])


@pytest.mark.slow
def test_two_processes_equal_one(data: Path, tmp_path: Path) -> None:
    settings = quick(steps=2, batch_size=1, accumulation=1, lora=LORA, condition_dropout=0.3)
    train_in_two(data, tmp_path / "two", settings)
    train(data, tmp_path / "one", quick(**{**settings.model_dump(exclude_unset=True), "batch_size": 2}))
    two, one = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("two", "one"))
    assert_close(two, one, rtol=1e-4, atol=1e-6)
    assert max(float(tensor.abs().max()) for name, tensor in two.items() if "lora_B" in name) > 1e-3


def test_a_blend_is_the_sum_and_a_smaller_rank_is_near(adapters: list[Path], tmp_path: Path) -> None:
    one, other = (str(adapter) for adapter in adapters)
    assert main(["blend", f"{one}@0.5", f"{other}@0.25", "--out", str(tmp_path / "sum")]) == 0
    blended, *parts = (adapter_files.load(Path(folder)).updates for folder in (tmp_path / "sum", one, other))
    for name, update in blended.items():
        expected = 0.5 * parts[0][name].delta() + 0.25 * parts[1][name].delta()
        assert_close(update.delta(), expected, rtol=1e-4, atol=1e-6)
    assert main(["blend", one, "--method", "resize", "--rank", "2", "--out", str(tmp_path / "small")]) == 0
    small = adapter_files.load(tmp_path / "small").updates
    for name, update in small.items():
        whole = parts[0][name].delta()
        assert torch.linalg.matrix_rank(update.delta()) <= 2
        assert (update.delta() - whole).norm() < whole.norm()


def test_a_bundle_and_its_card(adapters: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", str(adapters[0]), str(tmp_path / "a.zip")]) == 0
    assert main(["bundle", "--open", str(tmp_path / "a.zip"), str(tmp_path / "opened")]) == 0
    opened, own = (load_file(f / "adapter_model.safetensors") for f in (tmp_path / "opened", adapters[0]))
    assert_close(opened, own, rtol=0, atol=0)
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "opened")]) == 0
    said = capsys.readouterr().out
    assert "magenta_rt2" in said and "cross attention" in said and "depth" in said
    assert main(["convert", str(adapters[0]), "--to", "audiocraft", "--out", str(tmp_path / "x")]) == 2


def test_how_many_clips_follow_their_own_sound(data: Path) -> None:
    clips = clips_of(PreparedDataset(data), "train")

    def shares(share: float) -> tuple[float, float]:
        kinds: Any = {"kinds": ("style", "notes"), "dropouts": {"notes": 0.5}}
        stream = Stream(clips, seed=0, max_frames=9, condition_dropout=0.1, instead_share=share, **kinds)
        draws = [draw for draw in stream.step(0, 1000) if draw.caption is not None]
        without = np.mean(["notes" in draw.dropped for draw in draws])
        return float(np.mean([draw.instead for draw in draws])), float(without)

    for share in (0.0, 0.3, 1.0):
        instead, without = shares(share)
        assert instead == pytest.approx(share, abs=0.05 if 0 < share < 1 else 0) and without == pytest.approx(
            0.5, abs=0.06
        )
