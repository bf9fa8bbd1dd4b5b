"""Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019, arXiv:1811.02508)."""

import torch
from jaxtyping import Float
from torch import Tensor

FLOOR = 1e-8


def si_sdr_db(ours: Float[Tensor, "C N"], theirs: Float[Tensor, "C N"]) -> float:
    """Of ours against theirs, in dB, each without its mean; channels count as one long signal. Higher is better."""
    made, wanted = (audio.flatten().double() for audio in (ours, theirs))
    made, wanted = made - made.mean(), wanted - wanted.mean()
    target = (made @ wanted + FLOOR) / (wanted @ wanted + FLOOR) * wanted
    rest = made - target
    return float(10 * torch.log10((target @ target + FLOOR) / (rest @ rest + FLOOR)))
