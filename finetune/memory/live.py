"""Count the bytes that tensors hold while code runs, on any device, the meta device too.

Every storage that an operation makes is counted once and taken off when its last tensor dies, so that the peak is
what a perfect allocator would need. It does not see what a kernel allocates inside itself, nor what an allocator adds
by rounding and fragmentation: `finetune.memory.predict` adds those for CUDA.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.weak import WeakIdKeyDictionary

CUDA_ROUNDING_BYTES = 512
"""PyTorch's CUDA allocator hands out multiples of this (kMinBlockSize in c10/cuda/CUDACachingAllocator.cpp)."""


class LiveBytes(TorchDispatchMode):
    """While active: `live` bytes now, `peak` bytes at most. Tensors from before are counted with `hold`."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known = WeakIdKeyDictionary()

    def hold(self, *tensors: Tensor) -> None:
        """Count tensors that exist already: weights, gradients, optimizer state."""
        for tensor in tensors:
            self._count(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count what came out of it.

        A question about a value ("is nothing masked?") has no answer on the meta device: it is no, the general case.
        """
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return False
        result = func(*args, **(kwargs or {}))
        for item in tree_iter(result):
            if isinstance(item, Tensor):
                self._count(item)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        n_bytes = -(-storage.nbytes() // CUDA_ROUNDING_BYTES) * CUDA_ROUNDING_BYTES
        self._known[storage] = n_bytes
        weakref.finalize(storage, self._free, n_bytes).atexit = False
        self.live += n_bytes
        self.peak = max(self.peak, self.live)

    def _free(self, n_bytes: int) -> None:
        self.live -= n_bytes


@contextmanager
def fused_attention() -> Iterator[None]:
    """Attention on the meta device as fused kernels do it, while this is open.

    On meta tensors PyTorch takes the unfused fallback of `scaled_dot_product_attention`; a GPU or a CPU takes a flash
    or memory-efficient kernel, which keeps q, k, v, the output and one number per row, and makes nothing of size S x
    S.
    """
    functional = torch.nn.functional
    plain = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = _fused
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = plain


def _fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    assert not enable_gqa and dropout_p == 0.0
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.empty(attn_mask.shape, dtype=q.dtype, device="meta")
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return kernel(q, k, v, 0.0, is_causal, attn_mask=attn_mask, scale=scale)[0]
