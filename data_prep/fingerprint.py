"""A name for weights that is the same in every precision and sharding, and quick to compute.

It tells bases apart; it is no proof against tampering: a change that flips no sampled sign goes unseen.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

SAMPLE_SIZE = 1024


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A hash over names, shapes and the signs of at most 1024 evenly spaced values of each tensor: 16 hex digits.

    Signs survive rounding to bf16 and fp16, except where fp16 rounds to zero: there the sign bit still does,
    because the bit is read, not the comparison with zero.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(_signs(tensor))
    return digest.hexdigest()[:16]


def _signs(tensor: Tensor) -> bytes:
    flat = tensor.detach().reshape(-1)
    stride = max(1, -(-flat.numel() // SAMPLE_SIZE))
    return torch.signbit(flat[::stride]).to("cpu", torch.uint8).numpy().tobytes()
