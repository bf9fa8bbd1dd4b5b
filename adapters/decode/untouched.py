"""Playing through a model that is in use for another reason, and leaving it exactly as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def untouched(lm: nn.Module) -> Iterator[None]:
    """Everything in eval and without gradients for a while; every module's own flag comes back afterwards."""
    flags = {module: module.training for module in lm.modules()}
    for module in flags:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module, flag in flags.items():
            module.training = flag
