"""Several pieces at once within the memory of the device: as many as fit, fewer when it runs out all the same."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from configs.errors import UserError

Item = TypeVar("Item")
Made = TypeVar("Made")
USED_SHARE = 0.8
"""Of what is free: the rest is for products, the codec, and what the allocator loses."""


class DeviceTooSmallError(UserError):
    """Not even one item fits into the memory of the device."""


def let_go() -> None:
    """Give back to the device what nothing holds any more; layers refer to themselves and wait for the collector."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_bytes(device: torch.device) -> int | None:
    """What new tensors may take on this device now; None where that has no clear answer."""
    if device.type != "cuda":
        return None  # main memory is shared with everything else, and can be swapped
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def how_many_fit(bytes_each: int, device: torch.device) -> int | None:
    """How many items of this size; at least one, since only trying can tell. None where there is no way to know."""
    free = free_bytes(device)
    return None if free is None or not bytes_each else max(1, int(free * USED_SHARE) // bytes_each)


def in_halves(make: Callable[[Sequence[Item]], list[Made]], items: Sequence[Item]) -> tuple[list[Made], int]:
    """Make all at once, or in halves each time memory runs out; also says how many were made at once at most.

    Right where an item's result does not depend on what is made beside it.

    Raises:
        DeviceTooSmallError: memory ran out for a single item.
    """
    try:
        return make(items), len(items)
    except torch.OutOfMemoryError:
        pass
    let_go()  # outside of the except block: the traceback holds what was made so far
    if len(items) == 1:
        with one_piece():  # what only waited for the collector is gone by now
            return make(items), 1
    made, most = in_halves(make, items[: len(items) // 2])
    while len(made) < len(items):
        part = items[len(made) : len(made) + most]  # what did not fit is not tried again
        more, fitted = in_halves(make, part)
        made = made + more
        most = fitted if fitted < len(part) else most
    return made, most


@contextmanager
def one_piece() -> Iterator[None]:
    """Around what plays a single piece, which cannot be halved.

    Raises:
        DeviceTooSmallError: memory ran out.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        problem = str(error).splitlines()[0]
    else:
        return
    let_go()
    raise _too_small(problem)


def no_memory(error: Exception) -> UserError | None:
    """What to say of an error that means that memory ran out; None of any other."""
    if not isinstance(error, torch.OutOfMemoryError):
        return None
    return UserError(
        "The memory of this device is too small for this.",
        where=str(error).splitlines()[0],
        fix="Close what else uses the GPU; or use a smaller base, or --device cpu.",
    )


def _too_small(problem: str) -> DeviceTooSmallError:
    return DeviceTooSmallError(
        "The memory of this device is too small to play even one piece.",
        where=problem,
        fix="Use a smaller base, a shorter --window_sec, or --device cpu.",
    )
