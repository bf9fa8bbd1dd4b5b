"""The loss of `finetune.loss`, keeping only the logits for the backward pass.

Cross-entropy in fp32 on 16-bit logits keeps an fp32 table of log-probabilities and makes more of that size on its way
back: at batch 8, 4 codebooks and 30 s each of them is 0.37 GiB, as much as half of what a checkpointed small decoder
keeps. Here the logits themselves are kept, and the backward pass computes the probabilities again, one codebook at a
time. Same numbers: fp32 inside, the gradient in the type of the logits.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor

from adapters.pattern import IGNORE


def codebook_sums(logits: Float[Tensor, "B K S card"], labels: Int[Tensor, "B K S"]) -> Float[Tensor, " K"]:
    """Cross-entropy summed over the cells of each codebook whose label is not IGNORE, in nats and fp32."""
    return _CodebookSums.apply(logits, labels)  # pyright: ignore[reportReturnType]


class _CodebookSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        ctx.save_for_backward(logits, labels)
        sums = [
            F.cross_entropy(
                logits[:, k].flatten(0, 1).float(), labels[:, k].flatten(), ignore_index=IGNORE, reduction="sum"
            )
            for k in range(logits.shape[1])
        ]
        return torch.stack(sums)  # [K]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        logits, labels = ctx.saved_tensors
        grad_logits = torch.empty_like(logits)
        for k, grad in enumerate(grads[0].unbind()):
            grad_logits[:, k] = _grad(logits[:, k], labels[:, k], grad)
        return grad_logits, None


def _grad(logits: Tensor, labels: Tensor, grad: Tensor) -> Tensor:
    """Of one codebook, [B, S, card] in fp32: probabilities minus one at the label, zero where nothing is asked."""
    valid = labels != IGNORE
    probabilities = torch.softmax(logits.float(), dim=-1)
    probabilities.scatter_add_(-1, (labels * valid)[..., None], torch.full_like(probabilities[..., :1], -1.0))
    return probabilities.mul_((valid * grad)[..., None])
