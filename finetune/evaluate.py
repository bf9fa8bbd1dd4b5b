"""Held-out loss: the validation clips, the same each time, per codebook. It never looks at a training clip."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from adapters.device_memory import let_go
from adapters.family.lm import LM
from data_prep.prepared import PreparedDataset
from finetune.batches import Batch, Draw, collate
from finetune.buckets import even_batches
from finetune.loss import codebook_counts, codebook_sums

if TYPE_CHECKING:
    from accelerate import Accelerator


def evaluate(
    lm: LM, draws: Sequence[Draw], dataset: PreparedDataset, accelerator: "Accelerator", batch_size: int
) -> list[float]:
    """Mean cross-entropy in nats of each codebook over all cells of the draws, shared out among the processes.

    Where memory runs out, the same in smaller parts; with several processes the others wait for this one meanwhile.
    """
    while True:
        try:
            totals = _sums_and_counts(lm, draws, dataset, accelerator, batch_size)
            break
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
        let_go()
        batch_size //= 2
    shared: Tensor = accelerator.reduce(totals.to(accelerator.device), reduction="sum")  # pyright: ignore[reportAssignmentType]
    return (shared[0] / shared[1]).tolist()


def _sums_and_counts(
    lm: LM, draws: Sequence[Draw], dataset: PreparedDataset, accelerator: "Accelerator", batch_size: int
) -> Float[Tensor, "2 K"]:
    """Of this process's share, on the host."""
    totals = torch.zeros(2, lm.n_codebooks, dtype=torch.float64)
    for batch, logits in logits_of(lm, draws, dataset, accelerator, batch_size):
        labels = labels_of(lm, batch)
        totals += torch.stack([codebook_sums(logits, labels), codebook_counts(labels)]).double().cpu()
    return totals


def logits_of(
    lm: LM,
    draws: Sequence[Draw],
    dataset: PreparedDataset,
    accelerator: "Accelerator",
    batch_size: int,
    *,
    shared: bool = True,
) -> Iterator[tuple[Batch, Tensor]]:
    """The LM's logits [B, K, S, card] without gradients or dropout: on this process's share of the draws, or on all.

    Every process computes as often as the first, which has most: a sharded base needs all of them each time.
    """
    rank, n_processes = (accelerator.process_index, accelerator.num_processes) if shared else (0, 1)
    was_training = lm.training
    lm.eval()
    try:
        most, mine = (even_batches(draws, batch_size, number, n_processes) for number in (0, rank))
        for number, again in enumerate(most):
            part = mine[number] if number < len(mine) else again
            batch = collate(part, dataset, lm.spec).to(accelerator.device)
            inputs, _ = lm.inputs_and_labels(batch.codes, batch.n_frames)
            with torch.no_grad(), accelerator.autocast():
                logits = lm(inputs, batch.conditions)
            if number < len(mine):
                yield batch, logits
    finally:
        lm.train(was_training)


def labels_of(lm: LM, batch: Batch) -> Tensor:
    """What should follow each step, [B, K, S]."""
    return lm.inputs_and_labels(batch.codes, batch.n_frames)[1]


def mean(losses: Sequence[float]) -> float:
    """One number for the losses of all codebooks. Each has as many cells as the others, so this is the loss itself."""
    return sum(losses) / len(losses)
