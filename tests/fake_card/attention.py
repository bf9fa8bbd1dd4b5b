"""Attention as CUDA does it: flash without a mask on cards with bf16, else the memory-efficient kernel.

The conditions are those of `sdp_utils.cpp` in PyTorch's aten/src/ATen/native/transformers/cuda, as far as this project
meets them. Left to itself a fake tensor would take the unfused fallback, which holds scores of size S x S.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.nn import functional

aten = torch.ops.aten
ALIGNMENT = 8
"""Numbers; a mask's last dimension is padded to a multiple of it (16 bytes in half precision)."""


def fused(capability: tuple[int, int], plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A stand-in for `scaled_dot_product_attention`; tensors on the CPU go to `plain`."""

    def attention(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if not isinstance(q, FakeTensor):
            more: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa}
            return plain(q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal, **more)
        half = q.dtype in (torch.float16, torch.bfloat16)
        if attn_mask is None and half and capability >= (8, 0):
            return aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, False, scale=scale)[0]
        bias = None if attn_mask is None else _bias(attn_mask, q, k)
        learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (q, k, v))
        kernel = aten._scaled_dot_product_efficient_attention
        return kernel(q, k, v, bias, learns, dropout_p, is_causal, scale=scale)[0]

    return attention


def _bias(mask: Tensor, q: Tensor, k: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        allowed = torch.zeros((), dtype=q.dtype, device=q.device)
        mask = torch.where(mask, allowed, torch.full((), -torch.inf, dtype=q.dtype, device=q.device))
    width = mask.shape[-1]
    if width % ALIGNMENT:
        mask = functional.pad(mask, (0, ALIGNMENT - width % ALIGNMENT))[..., :width]
    return mask.expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
