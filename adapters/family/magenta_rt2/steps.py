"""Playing frame by frame: the same numbers as the whole piece at once, in memory that does not grow.

Each temporal layer keeps the last window of its own frames and of the conditions (41 frames in small, 25 in base) and
its sink; the depth stack starts anew in every frame. A piece may last for hours.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adapters.family.magenta_rt2.conditions import MagentaConditions
from adapters.family.magenta_rt2.layers import Levels
from adapters.family.magenta_rt2.lm import MagentaLM

Draw = Callable[[Float[Tensor, "B 1 card"], int], Int[Tensor, "B 1"]]
"""Given the logits of a level and its number, the code of each row (0 … card - 1). It sees all rows at once: guidance
by more rows mixes them there and gives each row of a group the same code."""


class MagentaSteps:
    """Several pieces side by side, one frame further with each call.

    Conditions may be exchanged at any time; they hold from the next frame on. Those for T frames are followed frame by
    frame, and the last of them stays.
    """

    def __init__(self, lm: MagentaLM, conditions: MagentaConditions) -> None:
        self.lm = lm
        self.n_rows = conditions.n_rows
        self.n_frames = 0
        window = lm.sizes.window_frames
        layers: list[Any] = list(lm.temporal.layers)
        self._rings = [tuple(part.ring(self.n_rows, window) for part in (at.self_attn, at.cross_attn)) for at in layers]
        self._next_input = lm.start(self.n_rows)
        self.follow(conditions)

    @torch.inference_mode()
    def follow(self, conditions: MagentaConditions) -> None:
        """Play under these conditions from the next frame on.

        Raises:
            ValueError: they are for another number of rows, or for no frame at all.
        """
        if conditions.n_rows != self.n_rows or not conditions.n_frames:
            raise ValueError(f"conditions for {conditions.n_rows} rows and {conditions.n_frames} frames")
        self._source = self.lm.encode(conditions, conditions.n_frames)  # [B, T, E]
        self._n_followed = 0

    @torch.inference_mode()
    def keep(self, index: Int[Tensor, " n"]) -> None:
        """Go on with these rows only."""
        self.n_rows = len(index)
        self._source, self._next_input = (held.index_select(0, index) for held in (self._source, self._next_input))
        for ring in (ring for pair in self._rings for ring in pair):
            ring.keep(index)

    @torch.inference_mode()
    def read(self, columns: Int[Tensor, "B K n"]) -> None:
        """Take these frames as played, all at once: what `next` gives continues them."""
        n_frames = columns.shape[2]
        if not n_frames:
            return
        heard = self.lm.embed(columns.to(self.lm.device).transpose(1, 2)).mean(2)  # [B, n, D]
        self._advance(torch.cat([self._next_input, heard[:, :-1]], dim=1))
        self._next_input = heard[:, -1:]

    @torch.inference_mode()
    def next(self, draw: Draw) -> Int[Tensor, "B K"]:
        """Play one more frame: `draw` is called level after level, and each level hears what was drawn before."""
        column, self._next_input = self.levels(self.state(), draw)
        return column

    @torch.inference_mode()
    def state(self) -> Float[Tensor, "B 1 D"]:
        """First half of `next`: what the stack over frames says of the next frame."""
        return self._advance(self._next_input)

    @torch.inference_mode()
    def hear(self, played: Float[Tensor, "B 1 D"]) -> None:
        """What `levels` gave for the frame that was played last, where `next` did not call it."""
        self._next_input = played

    @torch.inference_mode()
    def levels(self, state: Float[Tensor, "B 1 D"], draw: Draw) -> tuple[Int[Tensor, "B K"], Float[Tensor, "B 1 D"]]:
        """Second half: the frame's codes, level after level, and what the next frame hears of them.

        It reads and writes nothing of this object and asks nothing of the host, so a graph can hold it.
        """
        known, sizes = state, self.lm.sizes
        levels = [Levels(self.n_rows, sizes.depth, sizes.n_codebooks, known) for _ in range(sizes.depth.layers)]
        column, embedded = [], []
        for level in range(sizes.n_codebooks):
            code = draw(self._logits(known, level, levels), level)  # [B, 1]
            column.append(code)
            known = self.lm.embed_level(code, level)
            embedded.append(known)
        return torch.cat(column, dim=1), torch.stack(embedded, dim=2).mean(2)

    def _advance(self, inputs: Float[Tensor, "B n D"]) -> Float[Tensor, "B n D"]:
        """The temporal stack over the next frames, given the frame before each."""
        n_frames = inputs.shape[1]
        x, source = inputs, self._next_source(n_frames)
        for layer, rings in zip(self.lm.temporal.layers, self._rings, strict=True):
            x = layer(x, source, rings=rings)
        self.n_frames += n_frames
        return x

    def _next_source(self, n_frames: int) -> Float[Tensor, "B n E"]:
        last = self._source.shape[1] - 1
        if n_frames == 1:
            index = min(self._n_followed, last)
            source = self._source[:, index : index + 1]
        else:
            frames = torch.arange(self._n_followed, self._n_followed + n_frames, device=self._source.device)
            source = self._source[:, frames.clamp(max=last)]
        self._n_followed = min(self._n_followed + n_frames, last)
        return source

    def _logits(self, known: Float[Tensor, "B 1 D"], level: int, levels: list[Levels]) -> Float[Tensor, "B 1 card"]:
        depth = self.lm.depth
        x = depth.adapter(known)
        for layer, kept in zip(depth.layers, levels, strict=True):
            x = layer(x, levels=kept)
        return self.lm.logits_of(depth.norm(x), level)
