"""Several processes that train one model on a CPU: each hears crops of its own, and their gradients are averaged.

A step of so small a model gains a fifth from a second thread; a second process hears twice as much in the same time.
`python -m torch.distributed.run --nproc-per-node 2 -m …` starts them; without that, a process trains alone.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from configs.errors import UserError

T = TypeVar("T")


def join() -> int:
    """Meet the other processes, if there are any; returns the number of this one."""
    if not dist.is_torchelastic_launched():
        return 0
    if torch.cuda.is_available():
        raise UserError("On a GPU one process trains.", fix="Start the trainer without torch.distributed.run.")
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    return dist.get_rank()


def first_alone(work: Callable[[], T]) -> T:
    """Everybody does it, the first process before the others: what it leaves on disk they find."""
    if not dist.is_initialized():
        return work()
    if dist.get_rank() > 0:
        dist.barrier()
    done = work()
    if dist.get_rank() == 0:
        dist.barrier()
    return done


def together(model: nn.Module) -> nn.Module:
    """The same model; its gradients are everybody's mean."""
    return DistributedDataParallel(model, find_unused_parameters=True) if dist.is_initialized() else model


def agree(number: float) -> float:
    """The mean of what every process says."""
    if not dist.is_initialized():
        return number
    said = torch.tensor(number, dtype=torch.float64)
    dist.all_reduce(said)
    return said.item() / dist.get_world_size()
