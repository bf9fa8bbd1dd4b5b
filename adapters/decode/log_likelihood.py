"""Token log-likelihoods of given codes: how likely a model thinks music is, code by code.

This is how faster arithmetic is judged: what fp16 or int8 weights take away on held-out clips, against fp32.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from adapters.pattern import IGNORE, Pattern


@torch.no_grad()
def of_tape(
    pattern: Pattern,
    special: int,
    codes: Int[Tensor, "K T"],
    logits_of: Callable[[Int[Tensor, "1 K S"]], Float[Tensor, "1 K S card"]],
) -> Float[Tensor, "K T"]:
    """Log-likelihood in nats of every code, by frame, from a model that reads columns of this pattern; on the CPU."""
    n_frames = torch.tensor([codes.shape[1]])
    inputs, labels = pattern.inputs_and_labels(codes[None].cpu(), n_frames, special)
    shown = logits_of(inputs)[0].float().cpu()  # [K, S, card]
    loss = functional.cross_entropy(shown.transpose(1, 2), labels[0], reduction="none", ignore_index=IGNORE)  # [K, S]
    return -loss.gather(1, pattern.step_of_frame(codes.shape[1]) - 1)
