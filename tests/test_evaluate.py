from pathlib import Path

import pytest
import torch
from training_fixtures import quick

from adapters.conditions import Conditions
from adapters.family.load import load_lm
from adapters.lora import attach
from data_prep.base_files import resolve_base
from data_prep.prepared import PreparedDataset
from finetune import evaluate as module
from finetune.batches import clips_of, held_out
from finetune.evaluate import evaluate, mean
from finetune.precision import Precision
from finetune.processes import start_processes


@pytest.fixture
def set_up(mono_base: Path, tiny_data: Path):
    lm = load_lm(resolve_base(str(mono_base)))
    dataset = PreparedDataset(tiny_data)
    draws = held_out(clips_of(dataset, "validation"), max_clips=9, max_frames=40)
    return lm, dataset, draws, start_processes(Precision("cpu", "fp32", "fp32"))


def test_held_out_loss_is_that_of_each_clip_alone(set_up) -> None:
    """The slow way: one clip, one codebook, one cell at a time, without padding."""
    lm, dataset, draws, accelerator = set_up
    sums, count = torch.zeros(lm.n_codebooks, dtype=torch.float64), 0
    for draw in draws:
        codes = torch.tensor(dataset.codes(draw.clip_id)[:, : draw.n_frames]).long()[None]
        states = torch.tensor(dataset.text_state(draw.caption))[None]
        inputs, labels = lm.inputs_and_labels(codes, torch.tensor([draw.n_frames]))
        logits = lm(inputs, Conditions.of_text(states, torch.ones(1, states.shape[1], dtype=torch.bool)))
        for k in range(lm.n_codebooks):
            for frame in range(draw.n_frames):
                step = frame + k
                assert labels[0, k, step] == codes[0, k, frame]
                sums[k] -= logits[0, k, step].log_softmax(-1)[codes[0, k, frame]].double()
        count += draw.n_frames
    for batch_size in (1, 2):
        found = evaluate(lm, draws, dataset, accelerator, batch_size)
        torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), sums / count, rtol=1e-5, atol=0.0)


def test_memory_that_runs_out_makes_the_parts_smaller(set_up, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, dataset, draws, accelerator = set_up
    expected = evaluate(lm, draws, dataset, accelerator, 2)
    plain, tried, room = module.codebook_sums, [], 1

    def small(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        tried.append(len(logits))
        if len(logits) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return plain(logits, labels)

    monkeypatch.setattr(module, "codebook_sums", small)
    found = evaluate(lm, draws, dataset, accelerator, 2)
    assert tried == [2, 1, 1] and found == pytest.approx(expected, rel=1e-6)
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        evaluate(lm, draws, dataset, accelerator, 2)


def test_evaluation_is_without_dropout_and_leaves_the_mode_as_it_was(set_up) -> None:
    lm, dataset, draws, accelerator = set_up
    adapter = attach(lm, quick(lora={"dropout": 0.5}).lora, 0)
    for name, weight in adapter.parameters().items():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    lm.train()
    first = evaluate(lm, draws, dataset, accelerator, 2)
    assert first == evaluate(lm, draws, dataset, accelerator, 2)
    assert lm.training and any(module.training for module in lm.modules() if isinstance(module, torch.nn.Dropout))
    assert all(weight.grad is None for weight in adapter.parameters().values())


def test_training_clips_are_never_looked_at(set_up, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, dataset, draws, accelerator = set_up
    seen = []
    plain = dataset.codes
    monkeypatch.setattr(dataset, "codes", lambda clip_id: seen.append(clip_id) or plain(clip_id))
    evaluate(lm, draws, dataset, accelerator, 2)
    assert sorted(seen) == sorted(row.id for row in dataset.clips("validation"))
    assert not set(seen) & {row.id for row in dataset.clips("train")}


def test_mean_of_codebooks() -> None:
    assert mean([1.0, 2.0, 6.0]) == 3.0
