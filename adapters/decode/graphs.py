"""Steps as CUDA graphs: a step of a small model is some 300 kernels, and launching them takes longer than running them.

A graph holds one step of a window with attention over the first `reach` places; a longer window uses a few graphs of
rising reach, so that early steps do not read the whole cache. Everything that changes from step to step lies in device
buffers that the step itself moves on: replaying needs nothing from the host. What has other shapes or other buffers
(another condition, other rows, other sampling filters) needs another capture, which takes some tens of milliseconds.
"""

import warnings
from typing import Any

import torch

from adapters.decode.cache import BUCKET

WARM_UPS = 2
"""Steps run before a capture: libraries choose their kernels and workspaces in them."""


class GraphedSteps:
    """Replays steps of one window. Made anew by the window whenever what a capture holds on to was replaced."""

    def __init__(self, window: Any) -> None:
        self.window = window
        self.at = torch.zeros(1, dtype=torch.long, device=window.weights.device)
        self.graphs: dict[tuple, Any] = {}
        self.usable = window.weights.device.type == "cuda" and window.weights.capturable

    def play(self, until: int) -> None:
        """Hear steps up to `until`. Where capturing fails, steps run one kernel at a time from then on, with a word."""
        window = self.window
        self.at.fill_(window.at)
        while window.at < until and self.usable:
            graph = self._graph()
            if graph is not None:
                graph.replay()
                window.at += 1
        if window.at < until:
            window.play_plainly(until)

    def _graph(self) -> Any:
        """The graph for this step, captured on first use."""
        window = self.window
        needed = window.offset + window.at + 1
        reach = min(-(-needed // BUCKET) * BUCKET, window.cache.capacity)
        key = (reach, *window.knobs.form)
        if key not in self.graphs:
            self.graphs[key] = self._capture(reach)
        return self.graphs[key]

    def _capture(self, reach: int) -> Any:
        """Record one step. Running it beforehand changes nothing: it plays the same token at the same place again."""
        window = self.window
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self.at.fill_(window.at)
                window.fixed_step(self.at, reach)
        torch.cuda.current_stream().wait_stream(stream)
        self.at.fill_(window.at)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                window.fixed_step(self.at, reach)
        except RuntimeError as error:
            self.usable = False
            first_line = str(error).splitlines()[0]
            warnings.warn(f"steps cannot be captured as CUDA graphs, so they run slower: {first_line}", stacklevel=2)
            return None
        self.at.fill_(window.at)
        return graph
