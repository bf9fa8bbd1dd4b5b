"""Frames that share a code: their mean, and one value for each of them again. The last group may be short."""

import torch
from jaxtyping import Shaped
from torch import Tensor


def pooled(x: Shaped[Tensor, "B T d"], stride: int) -> Shaped[Tensor, "B t d"]:
    """The mean of every `stride` frames, t = ceil(T / stride); a short last group is the mean of what it has."""
    if stride == 1:
        return x
    return torch.nn.functional.avg_pool1d(x.transpose(1, 2), stride, ceil_mode=True).transpose(1, 2)


def spread(x: Shaped[Tensor, "B t d"], stride: int, n_frames: int) -> Shaped[Tensor, "B T d"]:
    """Every value `stride` times, cut to `n_frames`."""
    return x if stride == 1 else x.repeat_interleave(stride, dim=1)[:, :n_frames]
