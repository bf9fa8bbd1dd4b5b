"""One window of music being played: a grid of tokens that fills from left to right, and the cache beside it.

The grid [B, K, S] is in the delay pattern (adapters/pattern.py), start step included. Cells whose token is known or
special are filled in beforehand; the others hold `OPEN`. A step reads one column and writes the next one's open cells,
so prompts of different length simply have their known cells further to the right.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from adapters import pattern
from adapters.decode.cache import KeyValueCache
from adapters.decode.conditions import Hearing
from adapters.decode.graphs import GraphedSteps
from adapters.decode.network import (
    Attend,
    Rows,
    attend_from_start,
    attend_in_bucket,
    embed,
    logits,
    run_layers,
)
from adapters.decode.noise import cell_words, seed_word
from adapters.decode.sampling import Knobs, draw, guide
from adapters.decode.shape import DecoderShape
from adapters.decode.weights import DecoderWeights
from configs.errors import UserError

OPEN = -1
"""A cell that is still to be played."""


@dataclass(frozen=True)
class Score:
    """What a window starts from: known codes per row, how many frames each row has, and where the window lies."""

    prompts: Sequence[Int[Tensor, "K _"]]
    n_frames: Sequence[int]
    origins: Sequence[int]
    """Frame of each whole piece at which this window begins; random numbers are drawn by the piece's frames."""


def open_grid(shape: DecoderShape, score: Score) -> Int[Tensor, "B K S"]:
    """The grid before playing: special and prompt tokens in their cells, `OPEN` elsewhere."""
    longest = max(score.n_frames)
    lengths = torch.tensor(score.n_frames)
    codes = torch.full((len(lengths), shape.n_codebooks, longest), OPEN)
    for row, prompt in zip(codes, score.prompts, strict=True):
        row[:, : prompt.shape[1]] = prompt
    grid = pattern.build(codes, shape.special, channels=shape.channels)  # [B, K, S]
    valid = pattern.valid_cells(shape.n_codebooks, grid.shape[2], lengths, channels=shape.channels)
    return torch.where(valid, grid, shape.special)


class Window:
    """A window in play. `at` counts the steps that the model has heard; no method waits for the device."""

    def __init__(
        self, weights: DecoderWeights, hearing: Hearing, knobs: Knobs, seeds: Sequence[int], score: Score
    ) -> None:
        self.weights = weights
        self.hearing = hearing
        self.knobs = knobs
        self.rows = Rows(len(seeds), knobs.sampling.guidance != 1)
        self.seeds = torch.tensor([seed_word(seed) for seed in seeds], device=weights.device)
        self.lags = pattern.delays(weights.shape.n_codebooks, weights.shape.channels).to(weights.device)
        self.finite = torch.ones((), dtype=torch.bool, device=weights.device)
        self.grid = torch.empty(0, 0, 0, dtype=torch.long, device=weights.device)
        self.cache = KeyValueCache(weights.shape, 0, 0, weights.device, weights.cache_dtype)
        self.lay_out(score)

    def lay_out(self, score: Score) -> None:
        """Begin a window with the same rows. Buffers are kept where the size allows."""
        grid = open_grid(self.weights.shape, score)
        closed = (grid != OPEN).all(0).all(0)  # [S]
        self.n_known = int(closed.long().cumprod(0).sum())
        self.at = 0
        cache = self._room(grid.shape[2])
        if self.grid.shape == grid.shape and cache is self.cache:
            self.grid.copy_(grid)
            self.origins.copy_(torch.tensor(score.origins))
            return
        self.grid = grid.to(self.weights.device)
        self.origins = torch.tensor(score.origins, device=self.weights.device)
        self.cache = cache
        self._start_over()

    @property
    def n_steps(self) -> int:
        """Steps of the whole grid, start step included."""
        return self.grid.shape[2]

    @property
    def frames_ready(self) -> int:
        """Frames whose tokens are all known."""
        return max(0, min(self.at, self.n_steps - 1) - self.weights.shape.lag)

    @property
    def offset(self) -> int:
        """Places that a condition's prefix takes before the first step."""
        return 0 if self.hearing.prefix is None else self.hearing.prefix.shape[1]

    def play(self, until: int) -> None:
        """Hear steps up to `until` (or the last one that has a next)."""
        until = min(until, self.n_steps - 1)
        if self.at == 0 and until > 0:
            self.hear_known()
        if self.graphs.usable:
            self.graphs.play(until)
        else:
            self.play_plainly(until)

    def play_plainly(self, until: int) -> None:
        """Step by step, one kernel at a time."""
        while self.at < until:
            self._step()

    def hear_known(self) -> None:
        """Prefill: every step that is known from the start, at once, from an empty cache."""
        self._hear(max(self.n_known, 1))

    def hear_again(self) -> None:
        """Rebuild the cache from what was played so far, after the rows have changed."""
        self.cache = self._room(self.n_steps)
        self._start_over()
        if self.at:
            self._hear(self.at)

    def codes(self) -> Int[Tensor, "B K T"]:
        """Codes by frame; cells not played yet hold `OPEN`."""
        return pattern.revert(self.grid, channels=self.weights.shape.channels)

    def check(self) -> None:
        """Wait for the device and make sure that every logit so far was a number.

        Raises:
            UserError: a logit was NaN or infinite.
        """
        if not bool(self.finite):
            raise UserError(
                "the model's output is not a number (NaN or infinite logits)",
                where=f"within the first {self.at} steps of a window",
                fix="try --precision fp32 or bf16, a lower --strength, or an earlier checkpoint of the adapter",
            )

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only: the others are done."""
        index = torch.tensor(rows, device=self.weights.device)
        self.grid = self.grid.index_select(0, index)
        self.seeds = self.seeds.index_select(0, index)
        self.origins = self.origins.index_select(0, index)
        self.hearing = self.hearing.keep(index)
        self.cache.keep(torch.cat([index, index + self.rows.n_text]) if self.rows.guided else index)
        self.rows = Rows(len(rows), self.rows.guided)
        self._start_over()

    def hear_now(self, hearing: Hearing) -> None:
        """Another condition from here on. What was played stays heard as it was."""
        if not self.graphs.usable:
            self.hearing = hearing
        elif not self.hearing.take_over(hearing):
            self.hearing = hearing.own()
            self._start_over()

    def turn(self) -> None:
        """The knobs were turned. Guidance may have been switched on or off: then the null rows must come or go."""
        guided = self.knobs.sampling.guidance != 1
        if guided != self.rows.guided:
            self.rows = Rows(self.rows.n_text, guided)
            self.hear_again()

    def _start_over(self) -> None:
        """Buffers were replaced: graphs that hold the old ones are of no use any more."""
        self.positions = self.weights.positions(self.offset + self.n_steps)
        self.graphs = GraphedSteps(self)

    def _room(self, n_steps: int) -> KeyValueCache:
        needed = n_steps + self.offset
        if self.cache.keys.shape[1] == self.rows.n and needed <= self.cache.capacity:
            return self.cache
        return KeyValueCache(self.weights.shape, self.rows.n, needed, self.weights.device, self.weights.cache_dtype)

    def _hear(self, n: int) -> None:
        x = embed(self.weights, self.grid[:, :, :n])  # [B, n, D]
        if self.rows.guided:
            x = torch.cat([x, x])
        if self.hearing.prefix is not None:
            x = torch.cat([self.hearing.prefix[: self.rows.n], x], dim=1)
        x = x + self.positions[: self.offset + n]
        heard = self._layers(x.flatten(0, 1), attend_from_start(self.cache, 0)).view(x.shape)
        self.at = n
        if n < self.n_steps:
            self._write(n, self._choose(heard[:, -1], n - 1))

    def _step(self) -> None:
        """One step with its place known to the host: attention reads exactly what was played."""
        x = embed(self.weights, self.grid[:, :, self.at : self.at + 1])[:, 0]  # [B, D]
        x = x + self.positions[self.offset + self.at]
        if self.rows.guided:
            x = torch.cat([x, x])
        heard = self._layers(x, attend_from_start(self.cache, self.offset + self.at))
        self._write(self.at + 1, self._choose(heard, self.at))
        self.at += 1

    def fixed_step(self, at: Tensor, reach: int) -> None:
        """One step with its place `at [1]` on the device and fixed shapes: what a CUDA graph captures."""
        x = embed(self.weights, self.grid.index_select(2, at))[:, 0]  # [B, D]
        x = x + self.positions.index_select(0, at + self.offset)
        if self.rows.guided:
            x = torch.cat([x, x])
        heard = self._layers(x, attend_in_bucket(self.cache, at + self.offset, reach))
        chosen = self._choose(heard, at)
        column = self.grid.index_select(2, at + 1).squeeze(2)  # [B, K]
        self.grid.index_copy_(2, at + 1, torch.where(column == OPEN, chosen, column)[..., None])
        at += 1

    def _layers(self, x: Tensor, attend: Attend) -> Tensor:
        return run_layers(self.weights, x, self.rows, self.hearing, attend)

    def _choose(self, heard: Tensor, step: Tensor | int) -> Int[Tensor, "B K"]:
        """Tokens of the column behind `step`, given what was heard there."""
        guided = guide(logits(self.weights, heard), self.knobs, self.rows.n_text, self.rows.guided)
        self.finite.logical_and_(guided.sum().isfinite())
        return draw(guided, self.knobs, cell_words(self.seeds, self.origins[:, None] + step - self.lags))

    def _write(self, column: int, chosen: Int[Tensor, "B K"]) -> None:
        have = self.grid[:, :, column]
        self.grid[:, :, column] = torch.where(have == OPEN, chosen, have)
