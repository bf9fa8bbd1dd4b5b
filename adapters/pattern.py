"""Codebook patterns: how K parallel codebooks become one sequence of LM steps, and back.

An LM step predicts one column of up to K codes. Which frame each codebook of a column belongs to is the pattern's
choice. With delays, codebook k lags behind the first, so that a fine code is predicted knowing the coarser codes of its
own frame (Copet et al. 2023, arXiv:2306.05284, section 2.2). For lags 0, 1, 2, 3 and T = 5 frames, with `.` for the
special token:

    step      0  1  2  3  4  5  6  7  8
    k = 0     .  a0 a1 a2 a3 a4 .  .  .
    k = 1     .  .  b0 b1 b2 b3 b4 .  .
    k = 2     .  .  .  c0 c1 c2 c3 c4 .
    k = 3     .  .  .  .  d0 d1 d2 d3 d4

Step 0 is the start step. A whole sequence has `n_steps(T)` steps, here 1 + T + (largest lag); a training input leaves
the last step out and the labels leave the first out. All lags 0 is the parallel pattern: a column is a frame.

Other kinds stand beside this file: `pattern_flattened` (one code per step, or few) and `pattern_coarse_first`.
A pattern is a value: two with equal lags are equal. It knows nothing of models: the special id is an argument.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

IGNORE = -100
"""Label of a cell that holds no data: the default `ignore_index` of torch's cross-entropy."""


class Pattern(ABC):
    """What every pattern can do, given which frame a cell belongs to.

    A subclass says `n_codebooks`, `n_steps`, `n_frames`, `frame_of_cell` and `step_of_frame`. Within a codebook, frames
    follow each other. Where a code stands may depend on the length of the whole, as with coarse first: there, `n_steps`
    and `n_frames` as arguments must be those of a whole sequence; elsewhere those of any beginning will do.
    """

    @property
    @abstractmethod
    def n_codebooks(self) -> int:
        """K."""

    @abstractmethod
    def n_steps(self, n_frames: int) -> int:
        """Steps of a whole sequence of so many frames, start step included."""

    @abstractmethod
    def n_frames(self, n_steps: int) -> int:
        """Frames that are whole within the first `n_steps` steps, start step included; below 0 means not even none."""

    @property
    @abstractmethod
    def frames_behind(self) -> int:
        """How many frames have begun, at most, and are not whole yet, while a piece is being played."""

    @abstractmethod
    def frame_of_cell(self, n_steps: int, device: torch.device | str = "cpu") -> Int[Tensor, "K {n_steps}"]:
        """The frame of each cell; negative where a cell belongs to none. Frames past the last may go on; mask them."""

    @abstractmethod
    def step_of_frame(self, n_frames: int, device: torch.device | str = "cpu") -> Int[Tensor, "K {n_frames}"]:
        """The step at which each code of each frame stands: the inverse of `frame_of_cell`."""

    def build(self, codes: Int[Tensor, "B K T"], special: int) -> Int[Tensor, "B K S"]:
        """Whole sequence of LM steps for these codes, start step included: S = `n_steps(T)`.

        `codes` may be int16; the result is int64. Cells that hold no data are `special`.
        """
        n_frames = torch.full((codes.shape[0],), codes.shape[2], device=codes.device)
        cells, holds_data = self._spread(codes, n_frames)
        return torch.where(holds_data, cells, special)

    def revert(self, sequence: Int[Tensor, "B K S"]) -> Int[Tensor, "B K T"]:
        """Exact inverse of `build`. Cells outside the data are never read.

        Raises:
            ValueError: the sequence is too short to hold one whole frame or none.
        """
        n_frames = self.n_frames(sequence.shape[2])
        if n_frames < 0:
            raise ValueError(f"{sequence.shape[2]} steps are too few for {self.n_codebooks} codebooks")
        step = self.step_of_frame(n_frames, sequence.device)  # [K, T]
        return sequence.gather(2, step.expand(len(sequence), -1, -1))  # [B, K, T]

    def valid_cells(self, n_steps: int, n_frames: Int[Tensor, " B"]) -> Bool[Tensor, "B K {n_steps}"]:
        """Which cells of a whole sequence of `n_steps` hold data, for clips of `n_frames` each."""
        frame = self.frame_of_cell(n_steps, n_frames.device)  # [K, S]
        return (frame >= 0) & (frame < n_frames[:, None, None])

    def inputs_and_labels(
        self, codes: Int[Tensor, "B K T"], n_frames: Int[Tensor, " B"], special: int
    ) -> tuple[Int[Tensor, "B K S"], Int[Tensor, "B K S"]]:
        """What the LM reads and what it should predict next, for a padded batch: S = `n_steps(T)` - 1 for both.

        Clip b has `n_frames[b]` ≤ T frames; what `codes` holds behind them is never read. Every frame of every codebook
        is a label exactly once. Cells without data are `special` in the inputs and `IGNORE` in the labels.
        """
        cells, holds_data = self._spread(codes, n_frames)
        inputs = torch.where(holds_data, cells, special)[..., :-1]
        labels = torch.where(holds_data, cells, IGNORE)[..., 1:]
        return inputs, labels

    def _spread(
        self, codes: Int[Tensor, "B K T"], n_frames: Int[Tensor, " B"]
    ) -> tuple[Int[Tensor, "B K S"], Bool[Tensor, "B K S"]]:
        """Each cell's code, and whether the cell holds data at all; where it does not, the code is arbitrary."""
        n_clips, n_codebooks, width = codes.shape
        if n_codebooks != self.n_codebooks:
            raise ValueError(f"a pattern for {self.n_codebooks} codebooks cannot arrange {n_codebooks}")
        n_steps = self.n_steps(width)
        holds_data = self.valid_cells(n_steps, n_frames.clamp(max=width))
        if width == 0:
            return torch.zeros_like(holds_data, dtype=torch.long), holds_data
        frame = self.frame_of_cell(n_steps, codes.device).clamp(0, width - 1)  # [K, S]
        return codes.long().gather(2, frame.expand(n_clips, -1, -1)), holds_data  # [B, K, S]


def frames_at(step_of_frame: Int[Tensor, "K T"], n_steps: int) -> Int[Tensor, "K {n_steps}"]:
    """The frame of each cell, from the step of each frame's codes: -1 where there is none; later steps are left out."""
    n_codebooks, n_frames = step_of_frame.shape
    frames = torch.full((n_codebooks, n_steps + 1), -1, device=step_of_frame.device)
    number = torch.arange(n_frames, device=step_of_frame.device).expand(n_codebooks, -1)
    return frames.scatter_(1, step_of_frame.clamp(max=n_steps), number)[:, :n_steps]


@dataclass(frozen=True)
class Delays(Pattern):
    """Codebook k is `lags[k]` steps late. MusicGen: 0, 1, 2, 3, and in stereo 0, 0, 1, 1, …; parallel: all 0.

    Raises:
        ValueError: no lags, or a negative one.
    """

    lags: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.lags or min(self.lags) < 0:
            raise ValueError(f"lags must be 0 or more, one for each codebook, not {self.lags}")

    @classmethod
    def of(cls, lags: Sequence[int]) -> "Delays":
        """The pattern with these lags."""
        return cls(tuple(lags))

    @property
    def n_codebooks(self) -> int:
        """K."""
        return len(self.lags)

    @property
    def largest_lag(self) -> int:
        """A frame is whole this many steps after its first code."""
        return max(self.lags)

    @property
    def frames_behind(self) -> int:
        """The largest lag."""
        return self.largest_lag

    def n_steps(self, n_frames: int) -> int:
        """1 + T + (largest lag)."""
        return 1 + n_frames + self.largest_lag

    def n_frames(self, n_steps: int) -> int:
        """S - 1 - (largest lag)."""
        return n_steps - 1 - self.largest_lag

    def frame_of_cell(self, n_steps: int, device: torch.device | str = "cpu") -> Int[Tensor, "K {n_steps}"]:
        """Step s holds frame s - 1 - lag."""
        return torch.arange(n_steps, device=device) - 1 - self._lag(device)

    def step_of_frame(self, n_frames: int, device: torch.device | str = "cpu") -> Int[Tensor, "K {n_frames}"]:
        """Frame t stands at step 1 + t + lag."""
        return 1 + self._lag(device) + torch.arange(n_frames, device=device)

    def _lag(self, device: torch.device | str) -> Int[Tensor, "K 1"]:
        return torch.tensor(self.lags, device=device)[:, None]
