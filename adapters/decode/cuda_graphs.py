"""Steps as CUDA graphs: a step of a small model is some 300 kernels, and launching them takes longer than running them.

A graph holds one step of a window with attention over the first `reach` places; a longer window uses a few graphs of
rising reach, so that early steps do not read the whole cache. Everything that changes from step to step lies in device
buffers that the step itself moves on: replaying needs nothing from the host. What has other shapes or other buffers
(another condition, other rows, other sampling filters) needs another capture, which takes some tens of milliseconds.
"""

import warnings
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

WARM_UPS = 2
"""Steps run before a capture: libraries choose their kernels and workspaces in them."""


@runtime_checkable
class Holder(Protocol):
    """What holds the weights: where they are, and whether a graph can hold what is done with them."""

    @property
    def device(self) -> torch.device:
        """Where they are."""
        ...

    @property
    def capturable(self) -> bool:
        """As `can_be_captured` says."""
        ...


def can_be_captured(lm: nn.Module) -> bool:
    """Whether no product waits for the host: in 8 bits bitsandbytes (0.50) asks whether there are outliers.

    In 4 bits it does not: all kernels run on the current stream, and what they need besides torch allocates.
    """
    return not any(kind.__name__ == "Linear8bitLt" for module in lm.modules() for kind in type(module).__mro__)


class GraphedSteps:
    """Replays the steps of one window. Made anew whenever what a capture holds on to was replaced."""

    def __init__(
        self,
        step: Callable[[Tensor, int], None],
        reach_of: Callable[[int], int],
        form: Callable[[], tuple],
        weights: Holder,
    ) -> None:
        """Record and replay `step(at [1], reach)`.

        Args:
            step: one step at a place on the device; it moves `at` on.
            reach_of: how many places attention must see at a step.
            form: what a captured step has fixed besides: another form needs another capture.
            weights: tell the device, and whether a graph can hold them.
        """
        self.step, self.reach_of, self.form = step, reach_of, form
        self.place = torch.zeros(1, dtype=torch.long, device=weights.device)
        self.graphs: dict[tuple, Any] = {}
        self.usable = weights.device.type == "cuda" and weights.capturable

    def advance(self, at: int, until: int) -> int:
        """Replay the steps at .. until; returns how far it came.

        Where capturing fails, says so, once, and is not `usable` from then on.
        """
        self.place.fill_(at)
        while at < until and self.usable:
            graph = self._graph(at)
            if graph is not None:
                graph.replay()
                at += 1
        return at

    def _graph(self, at: int) -> Any:
        """The graph for this step, captured on first use."""
        reach = self.reach_of(at)
        key = (reach, *self.form())
        if key not in self.graphs:
            self.graphs[key] = self._capture(at, reach)
        return self.graphs[key]

    def _capture(self, at: int, reach: int) -> Any:
        """Record one step. Running it beforehand changes nothing: it draws the same tokens at the same place again."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self.place.fill_(at)
                self.step(self.place, reach)
        torch.cuda.current_stream().wait_stream(stream)
        self.place.fill_(at)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.step(self.place, reach)
        except torch.OutOfMemoryError:
            raise  # fewer rows may fit: no reason to go on without graphs
        except RuntimeError as error:
            self.usable = False
            first_line = str(error).splitlines()[0]
            warnings.warn(f"steps cannot be captured as CUDA graphs, so they run slower: {first_line}", stacklevel=2)
            return None
        self.place.fill_(at)
        return graph
