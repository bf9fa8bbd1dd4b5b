"""The tokens of one window, [B, K, S] in the model's pattern, filled from left to right.

Cells whose token is known or special are filled in beforehand; the others hold `OPEN`. Drawing a column writes its open
cells only, so prompts of different length simply have their known cells further to the right. No method but `check`
waits for the device.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adapters.decode.noise import cell_words, seed_word
from adapters.decode.sampling import Knobs, draw
from adapters.pattern import Pattern
from configs.errors import UserError

OPEN = -1
"""A cell that is still to be drawn."""


@dataclass(frozen=True)
class Layout:
    """What a window starts from: known codes per row, how many frames each row has, and where the window lies."""

    prompts: Sequence[Int[Tensor, "K _"]]
    n_frames: Sequence[int]
    origins: Sequence[int]
    """Frame of each whole piece at which this window begins; random numbers are drawn by the piece's frames."""


class Tape:
    """A window's tokens, and the way to draw them: every choice depends on (seed, frame, codebook) alone."""

    def __init__(
        self,
        pattern: Pattern,
        special: int,
        knobs: Knobs,
        seeds: Sequence[int],
        layout: Layout,
        device: torch.device,
    ) -> None:
        self.pattern, self.special, self.knobs, self.device = pattern, special, knobs, device
        self.seeds = torch.tensor([seed_word(seed) for seed in seeds], device=device)
        self.finite = torch.ones((), dtype=torch.bool, device=device)
        self.tokens = torch.empty(0, 0, 0, dtype=torch.long, device=device)
        self.lay_out(layout)

    def lay_out(self, layout: Layout) -> None:
        """Begin another window with the same rows. Buffers are kept where the size allows."""
        tokens = self._laid_out(layout)
        closed = (tokens != OPEN).all(0).all(0)  # [S]
        self.n_known = max(1, int(closed.long().cumprod(0).sum()))
        self.whole_at = self.pattern.step_of_frame(max(layout.n_frames)).amax(0).tolist()
        frames = self.pattern.frame_of_cell(tokens.shape[2])  # [K, S]
        self.frames_given = 1 + int(frames[:, : self.n_known].amax())
        if self.tokens.shape == tokens.shape:
            self.tokens.copy_(tokens)
            self.origins.copy_(torch.tensor(layout.origins))
            return
        self.tokens = tokens.to(self.device)
        self.origins = torch.tensor(layout.origins, device=self.device)
        self.frames = frames.to(self.device)

    @property
    def n_rows(self) -> int:
        """B."""
        return self.tokens.shape[0]

    @property
    def n_columns(self) -> int:
        """S, start step included."""
        return self.tokens.shape[2]

    def frames_known(self, at: int) -> int:
        """Frames whose codes are all known once `at` columns are read."""
        return bisect_right(self.whole_at, at)

    def columns_for(self, n_frames: int) -> int:
        """How many columns must be read for so many frames to be known, at most all that have a next."""
        return self.whole_at[min(n_frames, len(self.whole_at)) - 1]

    def codes(self) -> Int[Tensor, "B K T"]:
        """Codes by frame; cells not drawn yet hold `OPEN`."""
        return self.pattern.revert(self.tokens)

    def draw(self, at: int | Tensor, logits: Float[Tensor, "B n card"], first: int = 0) -> Int[Tensor, "B n"]:
        """Draw codebooks first .. first + n of the column behind `at`, keep those that are known, and write them.

        `at` may lie on the device, [1]: then nothing here depends on the host, and a graph can hold it.
        """
        self.finite.logical_and_(logits.sum().isfinite())
        levels = slice(first, first + logits.shape[1])
        frames = self.origins[:, None] + _column(self.frames[levels], at)
        chosen = draw(logits, self.knobs, cell_words(self.seeds, frames, first), levels)
        cells = self.tokens[:, levels]
        have = _column(cells, at)  # [B, n]
        tokens = torch.where(have == OPEN, chosen, have)
        if isinstance(at, int):
            cells[:, :, at + 1] = tokens
        else:
            cells.index_copy_(2, at + 1, tokens[..., None])
        return tokens

    def check(self, at: int) -> None:
        """Wait for the device and make sure that every logit so far was a number.

        Raises:
            UserError: a logit was NaN or infinite.
        """
        if not bool(self.finite):
            raise UserError(
                "the model's output is not a number (NaN or infinite logits)",
                where=f"within the first {at} steps of a window",
                fix="try --precision fp32 or bf16, a lower --strength, or an earlier checkpoint of the adapter",
            )

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        index = torch.tensor(rows, device=self.device)
        self.tokens = self.tokens.index_select(0, index)
        self.seeds = self.seeds.index_select(0, index)
        self.origins = self.origins.index_select(0, index)

    def _laid_out(self, layout: Layout) -> Int[Tensor, "B K S"]:
        """Before playing: special and prompt tokens in their cells, `OPEN` elsewhere."""
        lengths = torch.tensor(layout.n_frames)
        codes = torch.full((len(lengths), self.pattern.n_codebooks, max(layout.n_frames)), OPEN)
        for row, prompt in zip(codes, layout.prompts, strict=True):
            row[:, : prompt.shape[1]] = prompt
        tokens = self.pattern.build(codes, self.special)  # [B, K, S]
        return torch.where(self.pattern.valid_cells(tokens.shape[2], lengths), tokens, self.special)


def _column(cells: Tensor, at: int | Tensor) -> Tensor:
    """The column behind `at`, of the last dimension."""
    if isinstance(at, int):
        return cells[..., at + 1]
    return cells.index_select(cells.ndim - 1, at + 1).squeeze(-1)
