"""Part of what was played before is hidden from some clips, so that an adapter follows what it is given.

A model that is always shown the true past learns to go on with it: the drums of the last bar tell where the next beat
is, and the context track hardly matters. When it plays, a first beat in the wrong place is then kept to the end. With
holes in the past it has to listen. This is the word dropout of Bowman et al. 2016 (arXiv:1511.06349), in blocks of
steps, at a share that is drawn for each clip; what it did is in docs/play-along.md.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from finetune.batches import Draw

BLOCK_STEPS = 8
"""Steps that are hidden together; 0.16 s at 50 frames per second."""


def hide_past(inputs: Int[Tensor, "B K S"], draws: Sequence[Draw], special: int) -> Int[Tensor, "B K S"]:
    """The inputs with the special token, which says nothing, in the hidden steps of every codebook."""
    if not any(draw.hidden for draw in draws):
        return inputs
    gone = torch.from_numpy(hidden_steps(draws, inputs.shape[2])).to(inputs.device)
    return torch.where(gone[:, None], special, inputs)


def hidden_steps(draws: Sequence[Draw], n_steps: int) -> Bool[np.ndarray, "B {n_steps}"]:
    """Which steps each draw does not see: the same ones whatever else is in the batch."""
    gone = np.zeros((len(draws), n_steps), dtype=bool)
    n_blocks = -(-n_steps // BLOCK_STEPS)
    for row, draw in zip(gone, draws, strict=True):
        if draw.hidden is not None:
            blocks = np.random.default_rng(draw.hidden.seed).random(n_blocks) < draw.hidden.share
            row[:] = blocks.repeat(BLOCK_STEPS)[:n_steps]
    return gone
