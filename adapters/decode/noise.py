"""Random numbers that depend on nothing but (seed, frame, codebook, token): same seed, same piece, in any batch,
in any window, on any device, with no generator whose state could drift.

The mixer is a 32-bit integer hash in the multiply-and-shift family (Thomas Mueller's constant 0x45d9f3b); products stay
below 2^63, so that 64-bit integers hold them on every backend. It is no cryptography.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_MASK = 0xFFFFFFFF
_FACTOR = 0x45D9F3B
_STRIDE = 0x9E3779B9  # 2^32 / golden ratio: neighbouring counters land far apart


def seed_word(seed: int) -> int:
    """A seed of any size as one well mixed 32-bit word."""
    word = 0
    while True:
        word = _mix_int(word ^ (seed & _MASK))
        seed >>= 32
        if seed <= 0:
            return word


def cell_words(seeds: Int[Tensor, " B"], frames: Int[Tensor, "B n"], first: int = 0) -> Int[Tensor, "B n"]:
    """One word per row and codebook, from codebook `first` on, for the frame of its piece that each code belongs to."""
    codebook = torch.arange(first, first + frames.shape[1], device=frames.device)
    places = _mix((frames * _STRIDE + codebook) & _MASK)  # [B, n]
    return _mix(seeds[:, None] ^ places)


def gumbel(words: Int[Tensor, "B n"], tokens: Int[Tensor, "B n k"]) -> Float[Tensor, "B n k"]:
    """Gumbel noise per token: the argmax of logits plus this is a draw from their softmax (Maddison et al. 2014)."""
    mixed = _mix(_mix((words[..., None] + tokens * _STRIDE) & _MASK))  # [B, n, k]
    uniform = ((mixed >> 8).float() + 0.5) * 2.0**-24  # in (0, 1), 24 bits
    return -torch.log(-torch.log(uniform))


def _mix(x: Tensor) -> Tensor:
    x = ((x ^ (x >> 16)) * _FACTOR) & _MASK
    x = ((x ^ (x >> 16)) * _FACTOR) & _MASK
    return x ^ (x >> 16)


def _mix_int(x: int) -> int:
    x = ((x ^ (x >> 16)) * _FACTOR) & _MASK
    x = ((x ^ (x >> 16)) * _FACTOR) & _MASK
    return (x ^ (x >> 16)) ^ 0x5BD1E995
