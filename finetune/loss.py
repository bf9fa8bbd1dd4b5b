"""Cross-entropy in fp32, per codebook, over the cells that hold data.

A step's loss is the sum over all its cells divided by their count, where "all" means every micro-batch of the
accumulation on every process: a mean of means would weigh a clip by the company it happens to be in, and dividing by
the number of micro-batches would weigh short ones like long ones.
"""

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor

from adapters.pattern import IGNORE


def codebook_sums(logits: Float[Tensor, "B K S card"], labels: Int[Tensor, "B K S"]) -> Float[Tensor, " K"]:
    """Cross-entropy summed over the cells of each codebook whose label is not IGNORE, in nats and fp32."""
    cells = F.cross_entropy(
        logits.float().flatten(0, 2), labels.flatten(), ignore_index=IGNORE, reduction="none"
    )  # [B * K * S]
    return cells.view(labels.shape).sum(dim=(0, 2))


def codebook_counts(labels: Int[Tensor, "B K S"]) -> Int[Tensor, " K"]:
    """How many cells of each codebook hold data."""
    return (labels != IGNORE).sum(dim=(0, 2))


def for_backward(sums: Float[Tensor, " K"], step_cells: int, n_processes: int) -> Float[Tensor, ""]:
    """A micro-batch's part of the step's loss. `step_cells` counts the whole step, all processes together.

    Several processes average their gradients, which divides by their number once more than a sum over cells should.
    """
    return sums.sum() * (n_processes / step_cells)
