"""Coarse first: the coarsest codebook of all frames, then the others of all frames, side by side.

As VALL-E generates speech (Wang et al. 2023, arXiv:2301.02111), in one LM: each fine code is predicted knowing the
coarse codes of the whole piece, the future too. For T = 4 frames, with `.` for the special token:

    step      0  1  2  3  4  5  6  7  8
    k = 0     .  a0 a1 a2 a3 .  .  .  .
    k = 1     .  .  .  .  .  b0 b1 b2 b3
    k = 2     .  .  .  .  .  c0 c1 c2 c3

Where the fine codes begin depends on T. So the sequence of T frames does not begin as that of T + 1 frames does, no
frame is whole before the second half, and in a padded batch the fine codes of every clip begin where those of the
longest do. A model that learnt with one T plays with that T only. The sequences are those of audiocraft's
`CoarseFirstPattern`.

With a `span`, fine codes begin behind so many frames whatever T is, and the cells between stay empty: how far a fine
code is from its coarse one, which the model has learnt, is then the same in every clip and piece, and T frames begin as
T + 1 do. This is how models are moved to it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from adapters.pattern import Pattern, frames_at


@dataclass(frozen=True)
class CoarseFirst(Pattern):
    """The first `n_coarse` codebooks (mono 1, stereo 2), then the others; fine codebook n is `lags[n]` steps late.

    `span`: frames before the first fine code; 0 means as many as there are.

    Raises:
        ValueError: no coarse or no fine codebooks, or a negative lag.
    """

    lags: tuple[int, ...]
    n_coarse: int = 1
    span: int = 0

    def __post_init__(self) -> None:
        if not self.lags or min(self.lags) < 0 or self.n_coarse < 1 or self.span < 0:
            told = f"{self.n_coarse} coarse codebooks and fine ones with lags {self.lags}"
            raise ValueError(f"there must be codebooks of both kinds, and lags of 0 or more, not {told}")

    @classmethod
    def of(cls, n_codebooks: int, channels: int = 1, span: int = 0) -> "CoarseFirst":
        """Without lags."""
        return cls((0,) * (n_codebooks - channels), channels, span)

    @property
    def n_codebooks(self) -> int:
        """K."""
        return self.n_coarse + len(self.lags)

    @property
    def frames_behind(self) -> int:
        """All of them."""
        return self.span + max(self.lags)

    def n_steps(self, n_frames: int) -> int:
        """1 + 2T + (largest lag); with a span, 1 + span + T + (largest lag).

        Raises:
            ValueError: more frames than the span has.
        """
        self._check(n_frames)
        return 1 + (self.span or n_frames) + n_frames + max(self.lags)

    def n_frames(self, n_steps: int) -> int:
        """T of a whole sequence, or with a span of any beginning; below 0 where that of no frames is longer.

        Raises:
            ValueError: no number of frames has so many steps.
        """
        rest = n_steps - 1 - max(self.lags) - self.span
        if self.span:
            return rest
        if rest >= 0 and rest % 2:
            raise ValueError(f"no whole sequence of this pattern has {n_steps} steps")
        return rest // 2

    def frame_of_cell(self, n_steps: int, device: torch.device | str = "cpu") -> Int[Tensor, "K {n_steps}"]:
        """For the whole sequence of so many steps; -1 where a cell belongs to no frame."""
        return frames_at(self.step_of_frame(self.span or max(0, self.n_frames(n_steps)), device), n_steps)

    def step_of_frame(self, n_frames: int, device: torch.device | str = "cpu") -> Int[Tensor, "K {n_frames}"]:
        """Frame t of T: coarse at step 1 + t, fine at 1 + T + t + lag, or with a span at 1 + span + t + lag.

        Raises:
            ValueError: more frames than the span has.
        """
        self._check(n_frames)
        first = [1] * self.n_coarse + [1 + (self.span or n_frames) + lag for lag in self.lags]
        return torch.tensor(first, device=device)[:, None] + torch.arange(n_frames, device=device)

    def _check(self, n_frames: int) -> None:
        if self.span and n_frames > self.span:
            raise ValueError(f"coarse first over {self.span} frames cannot arrange {n_frames}")
