"""Several processes that train one model on a CPU: each hears crops of its own, and their gradients are averaged.

A step of so small a model gains little from a second thread, and nearly everything from a second process.
`python -m torch.distributed.run --nproc-per-node 2 -m …` starts them; without that, a process trains alone.
"""

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def join() -> int:
    """Meet the other processes, if there are any; returns the number of this one."""
    if not dist.is_torchelastic_launched():
        return 0
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    return dist.get_rank()


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
