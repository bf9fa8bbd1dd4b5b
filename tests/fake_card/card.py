"""The card: a dispatch mode under which CPU tensors are real and tensors on "cuda" hold shapes and types alone.

Loops, schedules, buckets and seeds of the host are the true ones. A value that is read from the card is 1 (or True), a
tensor that is copied from it is zeros. Raised: operands on different devices, a generator of another device, and,
while a graph is captured, whatever a capture forbids. Neither numbers nor the choice of kernels are judged.

Written against private interfaces of one torch version: `needs_known_torch` skips on another.
"""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensor, FakeTensorMode
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from fake_card import cuda_api, quantised
from fake_card.ledger import Ledger, place

TORCH = "2.14"
"""The version whose private interfaces are known here."""
aten = torch.ops.aten
VALUE_READS = {aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default}
HALF = (torch.bfloat16, torch.float16)
UPCAST_FROM = 1 << 12
"""Numbers in a tensor from which a copy into fp32 is worth noting."""

needs_known_torch = pytest.mark.skipif(
    not torch.__version__.startswith(TORCH + ".") or not torch.backends.cuda.is_built() or torch.cuda.is_available(),
    reason=f"the fake card knows torch {TORCH} built for CUDA, without a card; this is {torch.__version__}",
)


class CaptureError(RuntimeError):
    """What CUDA says when a capture meets something that a graph cannot hold."""


class FakeCard(TorchDispatchMode):
    """While active there is one CUDA device. `capability` is its generation: (8, 6) has bf16, (7, 5) has not."""

    def __init__(self, capability: tuple[int, int] = (8, 6), total_bytes: int = 10 * 2**30) -> None:
        super().__init__()
        self.capability, self.total_bytes = capability, total_bytes
        self.ledger = Ledger()
        self.capturing = False
        self.alike = True
        """What is answered when two tensors on the card are compared as a whole."""
        self.room: int | None = None
        """Live bytes beyond which memory runs out, as a card says it."""
        self._fake = FakeTensorMode(allow_non_fake_inputs=False)
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> "FakeCard":
        self._fake.__enter__()
        self._undo = cuda_api.install(self)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for undo in reversed(self._undo):
            undo()
        self._fake.__exit__(*error)

    def wait(self, what: str) -> None:
        """The host waits for the card."""
        if self.capturing:
            raise CaptureError(f"{what} while a graph is captured, in {place()}")
        self.ledger.waits[f"{what} in {place()}"] += 1

    def copy(self, what: str) -> None:
        """Numbers go from one side to the other."""
        if self.capturing:
            raise CaptureError(f"copy {what} while a graph is captured, in {place()}")
        self.ledger.copies[f"{what} in {place()}"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation where its operands are."""
        kwargs = kwargs or {}
        if _is_composite(func):  # these arrive whole in inference mode; a card sees their parts
            return self._watched(func.decompose, args, kwargs)
        tensors = _tensors([*args, *kwargs.values()])
        on_card = [tensor for tensor in tensors if isinstance(tensor, FakeTensor)]
        device = kwargs.get("device")
        target = None if device is None else torch.device(device).type
        if not on_card and target != "cuda":
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func.namespace == "bitsandbytes" and (parts := quantised.in_parts(self, func)) is not None:
            return self._watched(parts, args, kwargs)
        if func in VALUE_READS:
            return self._value(func, on_card[0])
        self._check_generator(kwargs.get("generator"), on_card[0].device.type if on_card else "cuda")
        if func is aten._to_copy.default and on_card and target == "cpu":
            self.copy("to the host")
            with unset_fake_temporarily():
                return torch.zeros(on_card[0].shape, dtype=kwargs.get("dtype") or on_card[0].dtype)
        if func is aten.copy_.default and not isinstance(args[0], FakeTensor):
            self.copy("to the host")
            with unset_fake_temporarily():
                return args[0].zero_()
        if len(on_card) < len(tensors):
            self._check_operands(func, tensors, on_card)
            args, kwargs = tree_map_only(Tensor, self._faked, (args, kwargs))
        result = func(*args, **kwargs)
        self._account(func, args, result)
        return result

    def _watched(self, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run what is made of several operations so that each of them comes here."""
        TorchDispatchMode.__enter__(self)
        try:
            return run(*args, **kwargs)
        finally:
            TorchDispatchMode.__exit__(self, None, None, None)

    def _value(self, func: Any, tensor: Tensor) -> bool | int | float:
        self.wait("value read")
        if func is aten.equal.default:
            return self.alike
        if tensor.dtype == torch.bool:
            return True
        return 1.0 if tensor.dtype.is_floating_point else 1

    @staticmethod
    def _check_generator(generator: torch.Generator | None, device: str) -> None:
        if generator is not None and generator.device.type != device:
            raise RuntimeError(f"a {generator.device.type} generator for numbers on {device}, in {place()}")

    def _check_operands(self, func: Any, tensors: list[Tensor], on_card: list[FakeTensor]) -> None:
        """What is not on the card may only be copied to it, or be a single number."""
        elsewhere = [tensor for tensor in tensors if not isinstance(tensor, FakeTensor)]
        copies = func in (aten._to_copy.default, aten.copy_.default)
        if copies and elsewhere:
            self.copy("to the card")
        elif self.capturing and any(tensor.dim() > 0 for tensor in elsewhere):
            raise CaptureError(f"{func} reads a CPU tensor while a graph is captured, in {place()}")

    def _faked(self, tensor: Tensor) -> FakeTensor:
        return tensor if isinstance(tensor, FakeTensor) else self._fake.from_tensor(tensor)

    def _account(self, func: Any, args: Any, result: Any) -> None:
        before = self.ledger.live
        self.ledger.hold(result)
        if self.room is not None and before < self.ledger.live > self.room:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate beyond {self.room} bytes.")
        if not _is_kernel(func):
            return
        self.ledger.kernels[func] += 1
        if func is aten._to_copy.default and result.dtype == torch.float32 and result.numel() > UPCAST_FROM:
            source = args[0]
            if source.dtype in HALF and source.device.type == "cuda":
                self.ledger.upcasts[f"in {place()}"] += 1


def _tensors(operands: Any) -> list[Tensor]:
    """Those of an operation; lists of tensors are the deepest that it can have."""
    found = [operand for operand in operands if isinstance(operand, Tensor)]
    lists = [operand for operand in operands if isinstance(operand, (list, tuple))]
    return found + [item for operand in lists for item in operand if isinstance(item, Tensor)]


@functools.cache
def _is_composite(func: Any) -> bool:
    key = "CompositeImplicitAutograd"
    return func.namespace == "aten" and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key)


@functools.cache
def _is_kernel(func: Any) -> bool:
    """Whether the card has anything to do: a view is the host's affair."""
    returns = func._schema.returns
    is_view = bool(returns) and all(one.alias_info is not None and not one.alias_info.is_write for one in returns)
    return not is_view and func.namespace != "prim"
