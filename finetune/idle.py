"""How long the device waits for its next clips while a step runs.

A gap is the time between the end of one micro-batch on the device and the begin of the next. On a GPU it is taken
from events in its own queue: work that the processor prepared in time leaves no gap, however long preparing took. On
a CPU the device is the processor itself, so every moment spent on preparing is a gap.
"""

import time
from typing import Any

import torch


class Idle:
    """Call `end` at the begin of a step and after each backward pass, `begin` before each forward pass."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self._last: Any = None
        self._gaps: list[tuple[Any, Any]] = []

    def begin(self) -> None:
        """The device gets work now."""
        if self._last is not None:
            self._gaps.append((self._last, self._now()))
        self._last = None

    def end(self) -> None:
        """All work given so far ends here."""
        self._last = self._now()

    def take_sec(self) -> float:
        """Seconds of all gaps since the last call; a GPU's queue has to be empty, as after reading the loss."""
        gaps, self._gaps = self._gaps, []
        if self.on_gpu:
            return sum((first.elapsed_time(second) for first, second in gaps), 0.0) / 1000
        return sum((second - first for first, second in gaps), 0.0)

    def _now(self) -> Any:
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
