from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_fixtures import quick

from adapters.conditions import Conditions
from adapters.family.lm import LM
from adapters.family.load import load_lm
from adapters.lora import attach
from adapters.pattern import IGNORE
from data_prep.base_files import resolve_base
from data_prep.prepared import PreparedDataset
from finetune.batches import Stream, clips_of, collate
from finetune.loss import codebook_counts, codebook_sums, for_backward
from finetune.precision import Precision
from finetune.processes import start_processes
from finetune.step import Learner, accumulate


@pytest.mark.parametrize("base", ["mono_base", "stereo_base"])
def test_loss_equals_transformers_own(base: str, request: pytest.FixtureRequest) -> None:
    """The whole model's labels → loss is the mean over codebooks of each one's mean."""
    from transformers import MusicgenForConditionalGeneration

    folder = request.getfixturevalue(base)
    whole = MusicgenForConditionalGeneration.from_pretrained(folder).eval()
    lm = load_lm(resolve_base(str(folder)))
    setattr(whole.config.decoder, "decoder_start_token_id", lm.card)  # noqa: B010
    torch.manual_seed(0)
    codes = torch.randint(0, lm.card, (2, lm.n_codebooks, 20))
    states, mask = torch.randn(2, 5, lm.spec.text_width), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    inputs, labels = lm.inputs_and_labels(codes, torch.tensor([20, 20]))
    ours = codebook_sums(lm(inputs, Conditions.of_text(states, mask.bool())), labels) / codebook_counts(labels)

    theirs_labels = lm.pattern.build(codes, lm.card)[..., 1:].transpose(1, 2)  # [B, S, K], special id = ignored
    theirs_labels = torch.where(theirs_labels == lm.card, IGNORE, theirs_labels)
    theirs = whole(encoder_outputs=(states,), attention_mask=mask, labels=theirs_labels)
    torch.testing.assert_close(ours.mean(), theirs.loss)
    logits = theirs.logits.view(2, lm.n_codebooks, -1, lm.card)
    per_codebook = codebook_sums(logits, labels) / codebook_counts(labels)
    torch.testing.assert_close(ours, per_codebook)


def test_ignored_cells_and_what_stands_in_them_count_nothing() -> None:
    torch.manual_seed(1)
    logits = torch.randn(2, 4, 9, 16, requires_grad=True)
    labels = torch.randint(0, 16, (2, 4, 9))
    labels[1, :, 5:] = IGNORE
    sums = codebook_sums(logits, labels)
    one_by_one = torch.zeros(4)
    for b, k, s in (labels != IGNORE).nonzero().tolist():
        one_by_one[k] -= logits[b, k, s].log_softmax(-1)[labels[b, k, s]].detach()
    torch.testing.assert_close(sums, one_by_one)
    assert codebook_counts(labels).tolist() == [14] * 4
    sums.sum().backward()
    assert logits.grad is not None and logits.grad[1, :, 5:].abs().sum() == 0


def test_loss_is_computed_in_fp32_whatever_the_logits_are() -> None:
    torch.manual_seed(2)
    logits = (4 * torch.randn(1, 2, 50, 64)).bfloat16()
    labels = torch.randint(0, 64, (1, 2, 50))
    sums = codebook_sums(logits, labels)
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums, codebook_sums(logits.double().float(), labels))


def learner_on(folder: Path, data: Path, **settings) -> Learner:
    torch.manual_seed(0)
    lm = load_lm(resolve_base(str(folder)))
    adapter = attach(lm, quick().lora, 0)
    for name, weight in adapter.parameters().items():
        if "lora_B" in name:  # B starts at 0, where A has no gradient
            torch.nn.init.normal_(weight, std=0.1)
    accelerator = start_processes(Precision("cpu", "fp32", "fp32"))
    weights = list(adapter.parameters().values())
    return Learner(lm, lm, weights, PreparedDataset(data), accelerator, quick(optim={"max_grad_norm": 0.0}, **settings))


def gradient(folder: Path, data: Path, batch_size: int) -> tuple[list[Tensor], list[float]]:
    """Of one step over the same six clips of different lengths, some without captions."""
    learner = learner_on(folder, data, batch_size=batch_size, accumulation=6 // batch_size)
    stream = Stream(clips_of(PreparedDataset(data), "train"), seed=1, max_frames=60, condition_dropout=0.3)
    draws = stream.step(0, 6)
    assert len({draw.n_frames for draw in draws}) > 2
    found = accumulate(learner, draws, 0, lambda: False)
    assert found is not None
    return [weight.grad for weight in learner.weights if weight.grad is not None], found.codebooks


def by_the_definition(folder: Path, data: Path) -> tuple[list[Tensor], list[float]]:
    """The same step without padding or accumulation: each clip alone, all cells added up, divided by their count."""
    learner = learner_on(folder, data)
    draws = Stream(clips_of(PreparedDataset(data), "train"), seed=1, max_frames=60, condition_dropout=0.3).step(0, 6)
    sums, counts = torch.zeros(4), torch.zeros(4)
    for draw in draws:
        batch = collate([draw], learner.dataset, learner.lm.spec)
        inputs, labels = learner.lm.inputs_and_labels(batch.codes, batch.n_frames)
        sums = sums + codebook_sums(learner.lm(inputs, batch.conditions), labels)
        counts = counts + codebook_counts(labels)
    return list(torch.autograd.grad(sums.sum() / counts.sum(), learner.weights)), (sums / counts).tolist()


def test_gradient_is_that_of_the_definition_for_every_micro_batch_size(mono_base: Path, tiny_data: Path) -> None:
    whole, whole_losses = by_the_definition(mono_base, tiny_data)
    assert len(whole) == 42 and all(tensor.abs().sum() > 0 for tensor in whole)
    for batch_size in (1, 2, 3, 6):
        parts, losses = gradient(mono_base, tiny_data, batch_size)
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(losses, whole_losses, rtol=1e-6, atol=0.0)


def test_a_mean_of_micro_batch_means_would_be_another_gradient(mono_base: Path, tiny_data: Path) -> None:
    """What the test above is there to catch: dividing each micro-batch by its own cells, then by their number."""
    learner = learner_on(mono_base, tiny_data)
    lm: LM = learner.lm
    torch.manual_seed(3)
    parts = []
    for n_frames in (60, 10):
        codes = torch.randint(0, lm.card, (1, lm.n_codebooks, n_frames))
        inputs, labels = lm.inputs_and_labels(codes, torch.tensor([n_frames]))
        parts.append((codebook_sums(lm(inputs, Conditions.null(1, lm.spec)), labels), 4 * n_frames))
    right = sum(for_backward(sums, 4 * 70, 1) for sums, _ in parts)
    wrong = sum(for_backward(sums, cells, 1) / 2 for sums, cells in parts)
    assert isinstance(right, Tensor) and isinstance(wrong, Tensor)
    grads = [torch.autograd.grad(loss, learner.weights[0], retain_graph=True)[0] for loss in (right, wrong)]
    assert (grads[0] - grads[1]).norm() > 0.05 * grads[0].norm()


def test_averaging_over_processes_is_made_up_for() -> None:
    sums = torch.tensor([2.0, 4.0])
    torch.testing.assert_close(for_backward(sums, 12, 2) / 2, for_backward(sums, 12, 1))
