"""Training on a card that is not there: whole runs, host code as it is. What waits for the card is a short list."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_card.card import needs_known_torch
from fake_card.driver import COMPILER, environment_with_driver
from fake_card.training_runs import RUNS

pytestmark = [
    needs_known_torch,
    pytest.mark.skipif(sys.platform != "linux" or COMPILER is None, reason="NOT TESTED: training on the fake card"),
]
ALWAYS = {"value read in step._judged"}
"""Once a step: the loss."""
ALSO = {
    "bf16, previews": {"value read in tape.check"},
    "nf4": {"value read in tape.check"},
    "prior, fitted": {"value read in tape.check", "synchronize in dry._on_gpu"},
    "fp16, recomputed": {"value read in train.learn", "value read in checkpoint.snapshot"},
}
"""A window played to its end; the scaler's look at overflows; the measured step."""
OUTLIERS = "question about outliers"
"""bitsandbytes' own, in every product in 8 bits."""


OWN_FORWARD = ("bf16 over fp32, dropout", "dora, adamw8bit")
"""They take peft's own forward pass, and autocast."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fake-card")
    words = [sys.executable, "-m", "fake_card.training_runs", str(folder)]
    done = subprocess.run(words, env=environment_with_driver(folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    return {line["name"]: line for line in lines}


@pytest.mark.parametrize("name", RUNS)
def test_a_whole_run(runs: dict[str, dict[str, Any]], name: str) -> None:
    run = runs[name]
    assert not run["problem"], run["problem"][-3000:]
    waits = {wait for wait in run["waits"] if not wait.startswith(OUTLIERS)}
    assert waits == ALWAYS | ALSO.get(name, set())
    assert (waits != set(run["waits"])) == name.startswith("int8")
    assert run["waits"]["value read in step._judged"] == 1
    assert run["kernels"] > 1000


@pytest.mark.parametrize("name", [name for name in RUNS if name not in OWN_FORWARD])
def test_nothing_large_is_turned_into_fp32_but_the_loss(runs: dict[str, dict[str, Any]], name: str) -> None:
    """A codebook at a time; not all logits, as Accelerate does for fp16."""
    allowed = {"lean_loss", "loss", "prior", "proof", "decoder"}  # the decoder's: logits that are sampled from
    assert {place.removeprefix("in ").split(".")[0] for place in runs[name]["upcasts"]} <= allowed


@pytest.mark.parametrize("name", ["bf16, previews", "nf4", "prior, fitted"])
def test_pieces_are_played_by_graphs(runs: dict[str, dict[str, Any]], name: str) -> None:
    assert 0 < runs[name]["captures"] < runs[name]["replays"]


def test_predicted_and_live_peaks_agree(folder: Path) -> None:
    """At true widths, within 3 %."""
    for plan, live, predicted in json.loads((folder / "peaks.json").read_text()):
        assert abs(predicted / live - 1) < 0.03, f"{plan}: {live / 2**30:.3f} GiB, predicted {predicted / 2**30:.3f}"
