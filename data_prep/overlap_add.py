"""A model that sees a fixed window, run over a signal of any length in bounded memory.

The arithmetic is that of Demucs' own `apply_model` with `split=True`: windows every (1 − overlap) · length samples,
each weighted by a triangle and divided by the summed weights; a window shorter than the model's at the end is centred
in what comes before it and zeros. It differs only in what it holds: about one window per batch entry, not the track.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

RunWindows = Callable[[Float[Tensor, "B C W"]], Float[Tensor, "B Q C W"]]


@dataclass(frozen=True)
class WindowPlan:
    """How `samples` are cut: `window` of them at a time are kept, out of `padded` that the model is given."""

    samples: int
    window: int
    padded: int
    overlap: float

    @property
    def stride(self) -> int:
        """Samples from one window's start to the next one's."""
        return max(1, int((1 - self.overlap) * self.window))

    @property
    def count(self) -> int:
        """Number of windows."""
        return -(-self.samples // self.stride)


def overlap_add(
    blocks: Iterator[Float[np.ndarray, "C _"]], plan: WindowPlan, run: RunWindows, batch: int = 1
) -> Iterator[Float[Tensor, "Q C _"]]:
    """Yield the model's outputs for the signal in the blocks, one piece per window, together exactly `plan.samples`
    long.

    Raises:
        ValueError: the blocks hold fewer samples than planned.
    """
    signal = _Signal(blocks, plan)
    weight = _triangle(plan.window)  # [W]
    sums: Tensor | None = None  # [Q, C, W]: the outputs so far, from the current window's start
    weights = torch.zeros(plan.window)
    for first in range(0, plan.count, batch):
        offsets = [index * plan.stride for index in range(first, min(first + batch, plan.count))]
        outputs = run(torch.stack([signal.window(offset) for offset in offsets]))  # [B, Q, C, padded]
        for offset, output in zip(offsets, outputs.float().cpu(), strict=True):
            length = min(plan.window, plan.samples - offset)
            lead = (plan.padded - length) // 2
            if sums is None:
                sums = torch.zeros(*output.shape[:2], plan.window)
            sums[..., :length] += weight[:length] * output[..., lead : lead + length]
            weights[:length] += weight[:length]
            done = min(plan.stride, plan.samples - offset)
            yield sums[..., :done] / weights[:done]
            sums, weights = _shifted(sums, plan.stride), _shifted(weights, plan.stride)


class _Signal:
    """The part of a stream that windows still need, zero on both sides of it."""

    def __init__(self, blocks: Iterator[np.ndarray], plan: WindowPlan) -> None:
        self.blocks, self.plan = blocks, plan
        first = next(blocks, np.zeros((1, 0), np.float32))
        self.start, self.held = 0, first

    def window(self, offset: int) -> Float[Tensor, "C W"]:
        """The model's input for the window at an offset; offsets must not go back."""
        plan = self.plan
        length = min(plan.window, plan.samples - offset)
        begin = offset - (plan.padded - length) // 2
        end = min(begin + plan.padded, plan.samples)
        self._read_to(end)
        self._forget(offset - plan.padded)
        left, right = max(0, -begin), begin + plan.padded - end
        piece = self.held[:, max(begin, 0) - self.start : end - self.start]
        return torch.from_numpy(np.pad(piece, ((0, 0), (left, right))))

    def _read_to(self, end: int) -> None:
        held, count = [self.held], self.start + self.held.shape[1]
        while count < end:
            block = next(self.blocks, None)
            if block is None:
                raise ValueError(f"the signal ends at sample {count} of {self.plan.samples}")
            held.append(block)
            count += block.shape[1]
        self.held = np.concatenate(held, axis=1) if len(held) > 1 else self.held

    def _forget(self, before: int) -> None:
        surplus = before - self.start
        if surplus > 0:
            self.held, self.start = self.held[:, surplus:].copy(), before


def _triangle(window: int) -> Float[Tensor, " W"]:
    rising = torch.arange(1, window // 2 + 1)
    falling = torch.arange(window - window // 2, 0, -1)
    both = torch.cat([rising, falling]).float()
    return both / both.max()


def _shifted(values: Float[Tensor, "*L W"], by: int) -> Float[Tensor, "*L W"]:
    rest = values[..., by:]
    return torch.nn.functional.pad(rest, (0, values.shape[-1] - rest.shape[-1]))
