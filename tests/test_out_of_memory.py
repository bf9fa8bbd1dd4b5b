"""Running out of memory in the middle of a step: the same gradient in smaller pieces, and it says so."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.testing import assert_close
from training_fixtures import quick, write_dataset

from adapters.family.load import load_lm
from adapters.lora import attach
from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.prepared import PreparedDataset
from finetune import lean_lora
from finetune.batches import Stream, clips_of
from finetune.out_of_memory import accumulate_or_shrink
from finetune.precision import Precision
from finetune.processes import start_processes
from finetune.run_log import read_log
from finetune.step import Learner, accumulate
from finetune.train import train

pytestmark = pytest.mark.usefixtures("fresh_processes")


@pytest.fixture(scope="module")
def data(mono_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("memory") / "data", mono_base, train=(50,) * 6)


class SmallDevice(torch.nn.Module):
    """A model on a device that holds so many clips at once: with more, the backward pass fails half way through."""

    def __init__(self, lm: torch.nn.Module, most_clips: int) -> None:
        super().__init__()
        self.lm, self.most_clips, self.failures = lm, most_clips, 0

    def forward(self, inputs: Tensor, conditions: Any) -> Tensor:
        logits = self.lm(inputs, conditions)
        layers: Any = self.lm.decoder.model.decoder.layers  # pyright: ignore
        if len(inputs) > self.most_clips and torch.is_grad_enabled():
            weight = layers[0].fc2.lora_B["default"].weight  # the last layers have their gradients by then
            handle = weight.register_hook(lambda _: self.fail())
            self.handles = [*getattr(self, "handles", []), handle]
        return logits

    def fail(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = []
        self.failures += 1
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")


def learner_on(data: Path, base: Path, most_clips: int = 99, **settings: Any) -> tuple[Learner, SmallDevice]:
    torch.manual_seed(0)
    lm = load_lm(resolve_base(str(base)))
    adapter = attach(lm, quick().lora, 0)
    lean_lora.install(lm)
    for name, weight in adapter.parameters().items():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    accelerator = start_processes(Precision("cpu", "fp32", "fp32"))
    device = SmallDevice(lm, most_clips)
    chosen = quick(optim={"max_grad_norm": 0.0}, **settings)
    return Learner(lm, device, list(adapter.parameters().values()), PreparedDataset(data), accelerator, chosen), device


def draws_for(learner: Learner, step: int = 0) -> list:
    assert isinstance(learner.dataset, PreparedDataset)
    stream = Stream(clips_of(learner.dataset, "train"), seed=1, max_frames=50, condition_dropout=0.3)
    return stream.step(step, 6)


def gradient(data: Path, base: Path, most_clips: int) -> tuple[list[Tensor], Learner, SmallDevice, list[str]]:
    learner, device = learner_on(data, base, most_clips, batch_size=6, accumulation=1)
    said: list[str] = []
    found = accumulate_or_shrink(accumulate, learner, draws_for(learner), 0, lambda: False, said.append)
    assert found is not None
    return [weight.grad for weight in learner.weights if weight.grad is not None], learner, device, said


def test_the_gradient_is_the_same_and_it_says_so(data: Path, mono_base: Path):
    whole, learner, device, said = gradient(data, mono_base, 99)
    assert not device.failures and not said and learner.batch_size == 6
    parts, learner, device, said = gradient(data, mono_base, 2)
    assert device.failures == 2 and learner.batch_size == 1 and len(said) == 2
    assert "step 1: out of memory; micro-batches are 3 of" in said[0] and "nothing is lost" in said[0]
    assert len(parts) == len(whole) == 42
    assert_close(parts, whole, rtol=1e-4, atol=1e-7)


def test_what_the_failed_attempt_left_is_thrown_away(data: Path, mono_base: Path):
    """The backward pass had filled some gradients before it failed: those must not count twice."""
    learner, _ = learner_on(data, mono_base, 2, batch_size=3, accumulation=2)
    with pytest.raises(torch.OutOfMemoryError):
        accumulate(learner, draws_for(learner), 0, lambda: False)
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in learner.weights)


def test_smaller_stays_for_the_steps_that_follow(data: Path, mono_base: Path):
    learner, device = learner_on(data, mono_base, 2, batch_size=6, accumulation=1)
    for step in range(2):
        accumulate_or_shrink(accumulate, learner, draws_for(learner, step), step, lambda: False, lambda _: None)
    assert device.failures == 2 and learner.batch_size == 1


def test_then_every_layer_is_recomputed_then_it_ends_with_advice(data: Path, mono_base: Path):
    learner, _ = learner_on(data, mono_base, 0, batch_size=2, accumulation=3)
    said: list[str] = []
    with pytest.raises(UserError, match="too small for this run") as caught:
        accumulate_or_shrink(accumulate, learner, draws_for(learner), 4, lambda: False, said.append)
    assert "every layer is recomputed" in said[-1] and learner.checkpointed == 2
    assert "Tried to allocate" in caught.value.where and "--base_weights nf4" in caught.value.fix


def test_a_whole_run_survives_it(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
    from finetune import step

    settings = {
        "steps": 4,
        "batch_size": 2,
        "accumulation": 2,
        "checkpoint": {"every_steps": 0},
        "eval": {"every_steps": 0},
    }
    train(data, tmp_path / "plain", quick(**settings))
    AcceleratorState._reset_state(reset_partial_state=True)
    plain, calls = step.codebook_sums, []

    def fails_once(logits: Tensor, labels: Tensor) -> Tensor:
        calls.append(len(logits))
        if len(calls) == 4:  # the second half of the second step
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(logits, labels)

    monkeypatch.setattr(step, "codebook_sums", fails_once)
    capsys.readouterr()
    train(data, tmp_path / "small", quick(**settings))
    assert "step 2: out of memory" in capsys.readouterr().err
    assert calls == [2, 2, 2, 2] + [1] * 12

    def losses(run: Path) -> list[float]:
        return [line["loss"] for line in read_log(run / "log.jsonl") if line["kind"] == "step"]

    assert len(losses(tmp_path / "small")) == 4
    assert losses(tmp_path / "small") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
