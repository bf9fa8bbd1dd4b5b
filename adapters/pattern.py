"""The delay pattern: how K parallel codebooks become one sequence of LM steps, and back.

The LM predicts all K codebooks at each step, but codebook k lags k steps behind the first, so that a fine token is
predicted knowing the coarser tokens of its own frame (Copet et al. 2023, arXiv:2306.05284, section 2.2). Stereo
codebooks come in pairs (left 0, right 0, left 1, …); both of a pair have the same lag. For K = 4, T = 5, with `.` for
the special token:

    step      0  1  2  3  4  5  6  7  8
    k = 0     .  a0 a1 a2 a3 a4 .  .  .
    k = 1     .  .  b0 b1 b2 b3 b4 .  .
    k = 2     .  .  .  c0 c1 c2 c3 c4 .
    k = 3     .  .  .  .  d0 d1 d2 d3 d4

Step 0 is the start step. A whole sequence has S = 1 + T + (largest delay) steps; a training input leaves the last step
out and the labels leave the first out, so both have T + (largest delay).

Everything here is index arithmetic and one gather. It knows nothing of models: the special id is an argument.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

IGNORE = -100
"""Label of a cell that holds no data: the default `ignore_index` of torch's cross-entropy."""


def delays(n_codebooks: int, channels: int) -> Int[Tensor, " K"]:
    """Lag in steps of every codebook: k for mono, k // 2 for stereo."""
    if channels not in (1, 2) or n_codebooks < 1 or n_codebooks % channels:
        raise ValueError(f"{n_codebooks} codebooks cannot be shared out among {channels} channels")
    return torch.arange(n_codebooks) // channels


def max_delay(n_codebooks: int, channels: int) -> int:
    """Lag of the last codebook: a sequence has this many more steps than frames, plus the start step."""
    return (n_codebooks - 1) // channels


def build(codes: Int[Tensor, "B K T"], special: int, *, channels: int) -> Int[Tensor, "B K S"]:
    """Whole sequence of LM steps for these codes, start step included: S = 1 + T + (largest delay).

    `codes` may be int16; the result is int64. Cells that hold no data are `special`. `codes` may be a prompt that the
    sampler goes on from: its last cells are then simply not known yet, see `prompt_steps`.
    """
    n_frames = torch.full((codes.shape[0],), codes.shape[2], device=codes.device)
    cells, holds_data = _spread(codes, n_frames, channels)
    return torch.where(holds_data, cells, special)


def revert(sequence: Int[Tensor, "B K S"], *, channels: int) -> Int[Tensor, "B K T"]:
    """Exact inverse of `build`: T = S − 1 − (largest delay). Cells outside the data are never read.

    Raises:
        ValueError: the sequence is too short to hold one whole frame or none.
    """
    _, n_codebooks, n_steps = sequence.shape
    n_frames = n_steps - 1 - max_delay(n_codebooks, channels)
    if n_frames < 0:
        raise ValueError(f"{n_steps} steps are too few for {n_codebooks} codebooks")
    lag = delays(n_codebooks, channels).to(sequence.device)
    step = 1 + lag[:, None] + torch.arange(n_frames, device=sequence.device)  # [K, T]
    return sequence.gather(2, step.expand(len(sequence), -1, -1))  # [B, K, T]


def prompt_steps(n_frames: int) -> int:
    """How many first steps of `build(prompt)` a sampler may keep: those whose every cell is known (or is special)."""
    return 1 + n_frames


def valid_cells(
    n_codebooks: int, n_steps: int, n_frames: Int[Tensor, " B"], *, channels: int
) -> Bool[Tensor, "B K {n_steps}"]:
    """Which cells of a whole sequence of `n_steps` hold data, for clips of `n_frames` each."""
    frame = _frame_of_cell(n_codebooks, n_steps, channels, n_frames.device)  # [K, S]
    return (frame >= 0) & (frame < n_frames[:, None, None])


def inputs_and_labels(
    codes: Int[Tensor, "B K T"], n_frames: Int[Tensor, " B"], special: int, *, channels: int
) -> tuple[Int[Tensor, "B K S"], Int[Tensor, "B K S"]]:
    """What the LM hears and what it should say next, for a padded batch: S = T + (largest delay) for both.

    Clip b has `n_frames[b]` ≤ T frames; what `codes` holds behind them is never read. Every frame of every codebook is
    a label exactly once. Cells without data are `special` in the inputs and `IGNORE` in the labels.
    """
    cells, holds_data = _spread(codes, n_frames, channels)
    inputs = torch.where(holds_data, cells, special)[..., :-1]
    labels = torch.where(holds_data, cells, IGNORE)[..., 1:]
    return inputs, labels


def _frame_of_cell(n_codebooks: int, n_steps: int, channels: int, device: torch.device) -> Int[Tensor, "K S"]:
    lag = delays(n_codebooks, channels).to(device)
    return torch.arange(n_steps, device=device) - 1 - lag[:, None]


def _spread(
    codes: Int[Tensor, "B K T"], n_frames: Int[Tensor, " B"], channels: int
) -> tuple[Int[Tensor, "B K S"], Bool[Tensor, "B K S"]]:
    """Each cell's code, and whether the cell holds data at all; where it does not, the code is arbitrary."""
    n_clips, n_codebooks, width = codes.shape
    n_steps = 1 + width + max_delay(n_codebooks, channels)
    holds_data = valid_cells(n_codebooks, n_steps, n_frames.clamp(max=width), channels=channels)
    if width == 0:
        return torch.zeros_like(holds_data, dtype=torch.long), holds_data
    frame = _frame_of_cell(n_codebooks, n_steps, channels, codes.device).clamp(0, width - 1)  # [K, S]
    return codes.long().gather(2, frame.expand(n_clips, -1, -1)), holds_data  # [B, K, S]
