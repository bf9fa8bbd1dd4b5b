"""Flattening: the codes of one frame spread over several LM steps, wholly or in part.

Fully flattened, each step predicts one code and knows all before it; K times as many steps are the price. Partly
flattened, some codebooks share a step (Copet et al. 2023, arXiv:2306.05284, section 2.2). For T = 3 frames, with `.`
for the special token:

    inner 0, 1, 2                 inner 0, 1, 1           inner 0, 1, 1 and lags 0, 2, 2

    .  a0 .  .  a1 .  .  a2 .  .  .  a0 .  a1 .  a2 .     .  a0 a1 .  a2 .  .  .  .
    .  .  b0 .  .  b1 .  .  b2 .  .  .  b0 .  b1 .  b2    .  .  .  b0 .  b1 .  b2 .
    .  .  .  c0 .  .  c1 .  .  c2 .  .  c0 .  c1 .  c2    .  .  .  c0 .  c1 .  c2 .

`inner` says at which inner step of its frame a codebook stands; an inner step that no codebook has stays empty. With
lags, codebooks of one inner step are late together, by frames: while a frame of theirs is missing, no step is spent on
it, and where an old frame's fine codes meet a new frame's coarse ones, the old frame comes first. The sequences are
those of audiocraft's `UnrolledPatternProvider`.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from adapters.pattern import Pattern, frames_at


@dataclass(frozen=True)
class Flattened(Pattern):
    """Codebook k stands at step `inner[k]` of its frame, `lags[k]` frames late; without lags, none is late.

    Raises:
        ValueError: no codebooks, numbers below 0 or falling, or codebooks of one inner step with different lags.
    """

    inner: tuple[int, ...]
    lags: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.lags:
            object.__setattr__(self, "lags", (0,) * len(self.inner))
        for name, values in (("inner steps", self.inner), ("lags", self.lags)):
            if not values or min(values) < 0 or sorted(values) != list(values) or len(values) != len(self.inner):
                raise ValueError(f"{name} must be 0 or more and never fall, one for each codebook, not {values}")
        if len(set(zip(self.inner, self.lags, strict=True))) != len(set(self.inner)):
            raise ValueError(f"codebooks of one inner step need one lag: inner steps {self.inner}, lags {self.lags}")

    @classmethod
    def fully(cls, n_codebooks: int) -> "Flattened":
        """One code per step."""
        return cls(tuple(range(n_codebooks)))

    @classmethod
    def coarse_apart(cls, n_codebooks: int, channels: int = 1) -> "Flattened":
        """Two steps per frame: its coarsest codebook (in stereo that of both channels), then all the others."""
        return cls(tuple(int(k >= channels) for k in range(n_codebooks)))

    @property
    def n_codebooks(self) -> int:
        """K."""
        return len(self.inner)

    @property
    def frames_behind(self) -> int:
        """The largest lag."""
        return max(self.lags)

    @cached_property
    def _inner_lags(self) -> tuple[int, ...]:
        """Lag of each inner step; an empty one is never late."""
        late = dict(zip(self.inner, self.lags, strict=True))
        return tuple(late.get(inner, 0) for inner in range(max(self.inner) + 1))

    @cached_property
    def _order(self) -> tuple[int, ...]:
        """Inner steps as they follow each other where all are present: empty ones, then the oldest frame's first."""
        late = self._inner_lags
        return tuple(sorted(range(len(late)), key=lambda inner: (inner in self.inner, -late[inner], inner)))

    @cached_property
    def _last_place(self) -> int:
        """Where in that order the codes stand that make a frame whole."""
        return max(
            self._order.index(inner) for inner, lag in zip(self.inner, self.lags, strict=True) if lag == max(self.lags)
        )

    def n_steps(self, n_frames: int) -> int:
        """1 + (inner steps) · T + Σ (largest lag - lag), summed over inner steps."""
        return 1 + sum(n_frames + max(self.lags) - lag for lag in self._inner_lags)

    def n_frames(self, n_steps: int) -> int:
        """Frames that are whole within the first `n_steps` steps; -1 where the sequence of no frames is longer."""
        spare = n_steps - self.n_steps(0)
        return -1 if spare < 0 else (spare - 1 - self._last_place) // len(self._inner_lags) + 1

    def frame_of_cell(self, n_steps: int, device: torch.device | str = "cpu") -> Int[Tensor, "K {n_steps}"]:
        """From the steps of as many frames as could have begun; -1 where a cell belongs to none."""
        return frames_at(self.step_of_frame(n_steps, device), n_steps)

    def step_of_frame(self, n_frames: int, device: torch.device | str = "cpu") -> Int[Tensor, "K {n_frames}"]:
        """All inner steps of earlier times, and those before it at its own."""
        lag = torch.tensor(self.lags, device=device)[:, None]
        time = torch.arange(n_frames, device=device) + lag  # [K, T]
        step = torch.ones_like(time)
        place = {inner: number for number, inner in enumerate(self._order)}
        for inner, late in enumerate(self._inner_lags):
            before = torch.tensor([place[inner] < place[own] for own in self.inner], device=device)[:, None]
            step += (time - late).clamp(min=0) + (before & (time >= late))
        return step
