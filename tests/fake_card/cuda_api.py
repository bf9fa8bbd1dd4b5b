"""Python's side of CUDA while there is no card: `torch.cuda`, attention, and what torch does to move modules."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
import torch._subclasses.fake_tensor as fake_tensor
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from fake_card import quantised
from fake_card.attention import fused

if TYPE_CHECKING:
    from fake_card.card import FakeCard

MISSING = object()


def install(card: "FakeCard") -> list[Callable[[], None]]:
    """Put everything in place; returns what puts the original back."""
    undo: list[Callable[[], None]] = []
    put = _putter(undo)
    quantised.install(put)
    for name, value in _of_cuda(card).items():
        put(torch.cuda, name, value)
    functional = torch.nn.functional
    put(functional, "scaled_dot_product_attention", fused(card.capability, functional.scaled_dot_product_attention))
    put(nn.Module, "_apply", _apply)
    put(nn.RNNBase, "flatten_parameters", lambda self: None)  # asks where the numbers lie
    put(torch, "tensor", _tensor(torch.tensor))
    tolist: Any = Tensor.tolist
    put(Tensor, "tolist", lambda self: self.cpu().tolist() if isinstance(self, FakeTensor) else tolist(self))
    put(FakeTensor, "tolist", lambda self: self.cpu().tolist())
    put(fake_tensor, "init_gpu_context", lambda *device: None)
    return undo


def _putter(undo: list[Callable[[], None]]) -> Callable[[Any, str, Any], None]:
    def put(owner: Any, name: str, value: Any) -> None:
        before = vars(owner).get(name, MISSING)
        setattr(owner, name, value)
        undo.append(lambda: delattr(owner, name) if before is MISSING else setattr(owner, name, before))

    return put


def _of_cuda(card: "FakeCard") -> dict[str, Any]:
    major, minor = card.capability
    properties = SimpleNamespace(total_memory=card.total_bytes, major=major, minor=minor, name="no card")
    generator_state = torch.zeros(16, dtype=torch.uint8)
    nothing = _Quiet().anything
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: False,
        "_lazy_init": nothing,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": nothing,
        "device": _Quiet,
        "get_device_name": lambda *device: "no card",
        "get_device_capability": lambda *device: card.capability,
        "get_device_properties": lambda *device: properties,
        "is_bf16_supported": lambda including_emulation=True: card.capability >= (8, 0),
        "mem_get_info": lambda *device: (card.total_bytes - 2**30, card.total_bytes),
        "memory_reserved": lambda *device: card.ledger.live,
        "memory_allocated": lambda *device: card.ledger.live,
        "max_memory_allocated": lambda *device: card.ledger.peak,
        "max_memory_reserved": lambda *device: card.ledger.peak,
        "reset_peak_memory_stats": nothing,
        "set_per_process_memory_fraction": nothing,
        "empty_cache": nothing,
        "synchronize": lambda *device: card.wait("synchronize"),
        "Stream": _Quiet,
        "Event": _Quiet,
        "current_stream": lambda *device: _Quiet(),
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": _graph_class(card),
        "graph": _capture(card),
        "manual_seed": nothing,
        "manual_seed_all": nothing,
        "get_rng_state": lambda *device: generator_state,
        "set_rng_state": nothing,
    }


class _Quiet:
    """Streams, events and device guards: every call is answered and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __getattr__(self, name: str) -> Callable[..., None]:
        return self.anything

    def __enter__(self) -> "_Quiet":
        return self

    def __exit__(self, *error: Any) -> None: ...

    def anything(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def elapsed_time(self, other: Any) -> float:
        """Milliseconds between two events."""
        return 0.0


def _graph_class(card: "FakeCard") -> type:
    class Graph(_Quiet):
        def replay(self) -> None:
            """Run it again: the host does nothing."""
            card.ledger.replays += 1

    return Graph


def _capture(card: "FakeCard") -> Callable[..., Any]:
    @contextmanager
    def capture(graph: Any, *args: Any, **kwargs: Any) -> Iterator[None]:
        card.capturing = True
        try:
            yield
        finally:
            card.capturing = False
        card.ledger.captures += 1

    return capture


def _apply(self: nn.Module, move: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`.to` of a module. torch would exchange the insides of tensors, which fakes do not allow: they are replaced."""
    for child in self.children():
        child._apply(move)
    for held in (self._parameters, self._buffers):
        for name, value in held.items():
            if value is None or quantised.is_quantised(value):
                continue
            moved = move(value)
            if moved.device == value.device and moved.dtype == value.dtype and type(moved) is type(value):
                continue
            is_parameter = held is self._parameters and not isinstance(moved, nn.Parameter)
            new: Any = nn.Parameter(moved.detach(), requires_grad=value.requires_grad) if is_parameter else moved
            held[name] = new
    return self


def _tensor(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Made on the host, then copied, as `torch.tensor` does it."""

    def tensor(data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
        target = _device_of_context() if device is None else torch.device(device)
        if target.type != "cuda":
            return plain(data, device=device, **kwargs)
        return plain(data, device="cpu", **kwargs).to(target)

    return tensor


def _device_of_context() -> torch.device:
    """What `with torch.device(...)` says; asking torch itself would make a tensor."""
    for mode in reversed(_get_current_function_mode_stack()):
        if isinstance(mode, DeviceContext):
            return mode.device
    return torch.device("cpu")
