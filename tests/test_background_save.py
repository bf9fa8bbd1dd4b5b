"""Checkpoints written while the loop goes on: of the moment they were asked for, whole, and never silently lost."""

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from configs.errors import UserError
from configs.train import OptimSettings
from finetune import background_save, checkpoint, optimizers
from finetune.background_save import BackgroundSave
from finetune.checkpoint import Position, State
from finetune.ema import Ema
from finetune.run import passes


def new_state() -> State:
    torch.manual_seed(0)
    weights = {
        "a.lora_A.weight": torch.nn.Parameter(torch.randn(4, 8)),
        "a.lora_B.weight": torch.nn.Parameter(torch.randn(8, 4)),
    }
    optimizer = optimizers.build(weights.items(), OptimSettings(lr=0.1), 1.0)
    state = State(weights, optimizer, Ema(weights, 0.9), None, Position())
    learn(state)
    return state


def learn(state: State) -> None:
    for weight in state.weights.values():
        weight.grad = torch.ones_like(weight)
    state.optimizer.step()
    state.ema.update()
    state.position.step += 1
    state.position.best_loss.append(float(state.position.step))


class Gate:
    """Holds the writing thread until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened, self.reached, plain = threading.Event(), threading.Event(), checkpoint.write

        def write(folder: Path, copy: checkpoint.Snapshot) -> Path:
            self.reached.set()
            assert self.opened.wait(20)
            return plain(folder, copy)

        monkeypatch.setattr(background_save, "write", write)


def test_it_holds_the_moment_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gate, state = Gate(monkeypatch), new_state()
    waited = checkpoint.save(tmp_path / "waiting", state)
    saver = BackgroundSave(tmp_path / "background", keep=2)
    saver.save(state)
    assert gate.reached.wait(20)
    assert not checkpoint.all_steps(tmp_path / "background")  # the loop goes on while nothing is written yet
    learn(state)
    gate.opened.set()
    saver.wait()
    written = tmp_path / "background" / "checkpoint-1"
    names = sorted(path.name for path in waited.iterdir())
    assert len(names) == 4 and names == sorted(path.name for path in written.iterdir())
    for name in names:
        assert (written / name).read_bytes() == (waited / name).read_bytes()


def test_one_after_the_other_and_pruned(tmp_path: Path):
    state, saver = new_state(), BackgroundSave(tmp_path, keep=2)
    state.position.best_step = 2
    for _ in range(5):
        saver.save(state)
        learn(state)
    saver.wait()
    assert checkpoint.all_steps(tmp_path) == [2, 4, 5]
    other = new_state()
    checkpoint.load(tmp_path / "checkpoint-5", other)
    assert other.position.step == 5
    learn(other)
    assert_close(other.weights, state.weights, rtol=0, atol=0)


def test_a_failure_is_told_at_the_next_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(copy: checkpoint.Snapshot) -> Iterator[tuple[str, bytes]]:
        raise OSError(28, "No space left on device")

    state, saver = new_state(), BackgroundSave(tmp_path, keep=2)
    monkeypatch.setattr(checkpoint, "_contents", full)
    saver.save(state)
    with pytest.raises(UserError, match="could not be written"):
        saver.wait()
    saver.save(state)
    learn(state)
    with pytest.raises(UserError, match="the disk is full"):
        saver.save(state)


def test_weights_alone_are_kept_for_the_choice(tmp_path: Path):
    """What would become the adapter at that moment, beside checkpoints, which pruning does not touch."""
    state = new_state()
    path = checkpoint.keep_weights(tmp_path, state)
    assert_close(load_file(path), dict(state.ema.average))
    for _ in range(2):
        learn(state)
        checkpoint.save(tmp_path, state)
    checkpoint.prune(tmp_path, 1, None)
    assert {step: file.name for step, file in checkpoint.kept_weights(tmp_path).items()} == {
        1: "weights-1.safetensors",
        3: "average.safetensors",
    }
    assert checkpoint.newest(tmp_path) == tmp_path / "checkpoint-3"


@pytest.mark.parametrize(("places", "total"), [(6, 200), (6, 6), (3, 4), (6, 4), (0, 10)])
def test_places_are_spread_over_a_run(places: int, total: int):
    reached = [step for step in range(1, total + 1) if passes(places, step, total)]
    assert len(reached) == min(places, total)
    assert not reached or (
        reached[-1] == total and max(b - a for a, b in pairwise([0, *reached])) <= -(-total // places)
    )
