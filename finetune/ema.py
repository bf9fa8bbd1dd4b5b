"""A running average of the adapter's weights: what is evaluated and saved when `ema_decay` is above 0."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """Average of named weights, in their own precision. `decay` 0 is no average: `weights` are then the live ones."""

    def __init__(self, live: dict[str, torch.nn.Parameter], decay: float) -> None:
        self.live = live
        self.decay = decay
        self.average = {name: weight.detach().clone() for name, weight in live.items()} if decay else {}
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the live weights. The first updates count more (decay ≤ (1 + n) / (10 + n)), to forget the start."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, average in self.average.items():
            average.lerp_(self.live[name], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the average inside this block, the live weights again afterwards."""
        kept = {name: weight.detach().clone() for name, weight in self.live.items()} if self.decay else {}
        self._set(self.average)
        try:
            yield
        finally:
            self._set(kept)

    def load(self, average: dict[str, Tensor], updates: int) -> None:
        """Continue from a saved average."""
        for name, tensor in average.items():
            self.average[name].copy_(tensor)
        self.updates = updates

    @torch.no_grad()
    def _set(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.live[name].copy_(value)
