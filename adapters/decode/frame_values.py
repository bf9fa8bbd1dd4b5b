"""What a piece follows frame by frame, where it is said while the piece plays: the last value stays."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FrameValues:
    """Values [n, width] from frame `first` of the piece on. Before it the first counts, behind its end the last."""

    first: int
    values: Tensor

    def between(self, start: int, stop: int) -> Tensor:
        """Those of these frames, [stop - start, width]."""
        index = torch.arange(start, stop, device=self.values.device) - self.first
        return self.values[index.clamp(0, len(self.values) - 1)]

    def followed_by(self, values: Tensor, at: int, kept_from: int) -> "FrameValues":
        """The same up to frame `at`, others from there on; what lies before `kept_from` is forgotten."""
        before = self.between(min(kept_from, at), at)
        return FrameValues(at - len(before), torch.cat([before, values.to(before)]))
