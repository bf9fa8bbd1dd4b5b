"""What stands before the first step: the melody's entries, then the text's, each projected to the decoder's width.

As transformers has it (and audiocraft, whose checkpoints these are): a melody shorter than the prefix begins again
until it is full; no melody is the pitch class C all along; no text is zeros. The padding of a short text in a batch is
zeros that are read like any others, so its length is part of what the model is given.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from adapters.conditions import Condition


def melody_entries(melody: Condition, n_entries: int) -> Float[Tensor, "B {n_entries} n_chroma"]:
    """Each row's melody, repeated or cut to `n_entries`; the first pitch class where a row has none."""
    n_chroma = melody.values.shape[2]
    lengths = melody.mask.sum(dim=1)  # [B]
    place = torch.arange(n_entries, device=lengths.device) % lengths.clamp(min=1)[:, None]  # [B, n_entries]
    values = melody.values.float().gather(1, place[..., None].expand(-1, -1, n_chroma))
    null = functional.one_hot(torch.zeros_like(place), n_chroma).to(values)
    return torch.where((lengths > 0)[:, None, None], values, null)


def text_entries(projected: Float[Tensor, "B L D"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
    """Projected text states, zeros where there is no text."""
    return projected * mask[..., None]
