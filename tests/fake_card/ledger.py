"""What was said to the card: kernels, waits for a value, copies, copies into fp32, and the bytes that are alive."""

import sys
import weakref
from collections import Counter
from typing import Any

from torch import Tensor
from torch._subclasses import FakeTensor
from torch.utils._pytree import tree_iter
from torch.utils.weak import WeakIdKeyDictionary

OURS = ("/adapters/", "/finetune/", "/data_prep/", "/configs/")
ROUNDING_BYTES = 512
"""Of PyTorch's CUDA allocator."""


def place() -> str:
    """File and function of the innermost frame of the project: line numbers would change with every edit."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if any(part in name for part in OURS) and "site-packages" not in name:
            return f"{name.rsplit('/', 1)[1].removesuffix('.py')}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "tests"


class Ledger:
    """Counters by what happened and where; `live` and `peak` bytes on the card."""

    def __init__(self) -> None:
        self.kernels: Counter[Any] = Counter()
        self.waits: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        self.upcasts: Counter[str] = Counter()
        self.captures = self.replays = 0
        self.live = self.peak = 0
        self._known = WeakIdKeyDictionary()

    def clear(self) -> None:
        """Begin anew; what is alive stays counted."""
        for counter in (self.kernels, self.waits, self.copies, self.upcasts):
            counter.clear()
        self.captures = self.replays = 0
        self.peak = self.live

    def hold(self, result: Any) -> None:
        """Count the storages of an operation's tensors until they die."""
        for tensor in (result,) if isinstance(result, Tensor) else tree_iter(result):
            if isinstance(tensor, FakeTensor) and tensor.device.type == "cuda":
                self._hold(tensor)

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        n_bytes = -(-storage.nbytes() // ROUNDING_BYTES) * ROUNDING_BYTES
        self._known[storage] = n_bytes
        self.live += n_bytes
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, n_bytes).atexit = False

    def _free(self, n_bytes: int) -> None:
        self.live -= n_bytes
