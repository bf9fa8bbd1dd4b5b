"""How well the codebooks are used: a code that is never chosen is wasted, and so are bits of codes that hardly are."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

if TYPE_CHECKING:
    from starter.recipe.codec_model import CodecModel
    from starter.recipe.crops import Crops


@dataclass
class Use:
    """Of one codebook: share of codes chosen at all, exp of the entropy, entropy over log(card)."""

    share_used: float
    perplexity: float
    efficiency: float


def use_of(codes: Int[Tensor, " M"], card: int) -> Use:
    """How a codebook of `card` entries is used by these codes."""
    counts = torch.bincount(codes.flatten(), minlength=card).double()
    share = counts / counts.sum()
    entropy = float(-(share * share.clamp(min=1e-12).log()).sum())
    perplexity = float(torch.tensor(entropy).exp())
    return Use(float((counts > 0).double().mean()), perplexity, entropy / float(torch.tensor(card).log()))


@torch.no_grad()
def utilisation(model: "CodecModel", crops: "Crops", n_batches: int = 24) -> list[Use]:
    """Of every codebook, over random crops that training has not drawn."""
    model.eval()
    codes = [model(crops.batch(step, seed=2), quantize=True).codes for step in range(n_batches)]
    model.train()
    every = torch.cat(codes).flatten(0, 1)  # [B*T, K]
    return [use_of(every[:, k], model.size.card) for k in range(every.shape[1])]
