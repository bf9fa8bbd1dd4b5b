"""Magenta RealTime 2 behind the sampler's port: rings instead of a cache, level after level, one row per piece.

A window is only a stretch of tape here: what the layers remember goes on over its edge, so nothing is read twice and a
piece may last for ever. Guidance is a condition of this model: a scale g of classifier-free guidance is its strength
of style g - 1, which costs no second row; strengths that are given as a condition count instead. Of several styles at
once the one with the largest share is followed: tokens cannot be mixed, only places in the space of styles can.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from weakref import proxy

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adapters.conditions import Conditions
from adapters.decode.cuda_graphs import GraphedSteps, can_be_captured
from adapters.decode.engine import Blend, Engine, Packing, Steps
from adapters.decode.sampling import Knobs
from adapters.decode.strengths import StrengthBank
from adapters.decode.tape import Tape
from adapters.decode.whole_sequence import with_adapters
from adapters.family.magenta_rt2.conditions import MagentaConditions, strength_bins
from adapters.family.magenta_rt2.lm import MagentaLM
from adapters.family.magenta_rt2.playing import adapted_products, bytes_per_frame, laid_out_for_playing
from adapters.family.magenta_rt2.spec import STRENGTHS
from adapters.family.magenta_rt2.steps import MagentaSteps
from configs.errors import UserError


@dataclass(frozen=True)
class Told:
    """The conditions of all rows, on the CPU where their values are checked, and whose strengths are given."""

    conditions: MagentaConditions
    own_strengths: Bool[Tensor, " B"]

    def guided(self, guidance: float) -> MagentaConditions:
        """With guidance as the strength of style, in the rows that have no strengths of their own."""
        style, *others = strength_bins(guidance - 1)
        bins = torch.tensor([style, *others]).expand_as(self.conditions.strengths)
        kept = self.own_strengths[:, None, None]
        return replace(self.conditions, strengths=torch.where(kept, self.conditions.strengths, bins))


class MagentaEngine(Engine[Told]):
    """The model's weights, ready to play."""

    def __init__(self, lm: MagentaLM, strengths: StrengthBank | None = None, bytes_per_step: int | None = None) -> None:
        self.lm = lm
        self.spec, self.pattern = lm.spec, lm.pattern
        self.device, self.dtype = lm.device, lm.dtype
        self.strengths = strengths or StrengthBank([], lm.device, lm.dtype)
        self.bytes_per_step = bytes_per_step or bytes_per_frame(lm, torch.finfo(lm.dtype).bits / 8)
        self.capturable = can_be_captured(lm)

    @classmethod
    def pack(cls, lm: MagentaLM, packing: Packing) -> "MagentaEngine":
        """With weights of its own, adapters merged or live. `lm` is used up.

        Raises:
            UserError: an adapter touches a module that the model does not have; the arithmetic is none of its own.
        """
        if packing.kind == "plain":
            return cls(*with_adapters(lm, packing))
        if packing.kind == "int8_weights":
            raise UserError(
                "This model has no int8 weights on a GPU.", fix="leave --precision out, or use --device cpu"
            )
        weights = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0}[packing.kind]
        size = bytes_per_frame(lm, weights)
        played, live = ("temporal.", "depth."), packing.merged_at is None
        outside = {
            name: {module: update for module, update in updates.items() if not (live and module.startswith(played))}
            for name, updates in packing.adapters.items()
        }
        lm, strengths = with_adapters(lm, replace(packing, adapters=outside))
        wrap = adapted_products(lm, packing.adapters, strengths) if live else None
        return cls(laid_out_for_playing(lm, packing.kind, wrap), strengths, size)

    def quietly(self) -> AbstractContextManager[None]:
        """No gradients."""
        return torch.no_grad()

    def encode(self, conditions: Conditions) -> Told:
        """Style, notes, drums and strengths of every row."""
        n_rows = len(next(iter(conditions.by_kind.values())).mask)
        conditions = conditions.to("cpu")
        given = conditions.get(STRENGTHS)
        own = torch.zeros(n_rows, dtype=torch.bool) if given is None else given.mask[:, 0]
        return Told(MagentaConditions.of_kinds(conditions, n_rows), own)

    def start(self, tape: Tape, knobs: Knobs) -> "MagentaTapeSteps":
        """Begin a window."""
        return MagentaTapeSteps(self, tape, knobs)

    def log_likelihoods(self, codes: Int[Tensor, "K T"], conditions: Conditions) -> Float[Tensor, "K T"]:
        """In one pass over the whole piece, without guidance."""
        codes = codes[None].to(self.device)
        told = self.encode(conditions)
        with torch.no_grad():
            logits = self.lm(codes, told.guided(1.0)).float().log_softmax(-1)
        return logits[0].gather(-1, codes[0][..., None]).squeeze(-1).cpu()


class MagentaTapeSteps(Steps[Told]):
    """Windows in play, one after another: `player` is what the layers remember of all that was read.

    On a GPU the levels of a frame are one graph: some 1,000 small kernels in the small model, where the stack over
    frames has about 400, whose rings and positions change on the host and which are launched one by one.
    """

    def __init__(self, engine: MagentaEngine, tape: Tape, knobs: Knobs) -> None:
        self.engine, self.lm, self.tape, self.knobs = engine, engine.lm, tape, knobs
        self.player: MagentaSteps | None = None
        self.told: Told | None = None
        self.at = 0
        self._origins = tape.origins.clone()
        self._buffers_replaced()

    def restart(self) -> None:
        """Where the new window begins with what was read last, nothing is read again."""
        read = self._origins + self.at
        goes_on = self.player is not None and torch.equal(read, self.tape.origins + self.tape.n_known - 1)
        self.at = self.tape.n_known - 1 if goes_on else 0
        self.player = self.player if goes_on else None
        self._origins = self.tape.origins.clone()
        if self.tape.tokens is not self._written:
            self._buffers_replaced()

    def follow(self, blend: Blend[Told]) -> None:
        """Other conditions from the next frame on; of several the one with the largest share, row by row."""
        told = blend.parts[0] if blend.shares is None else _largest(blend.parts, blend.shares[..., 0])
        if told is not self.told:
            self.told = told
            self._tell()

    def advance(self, until: int) -> None:
        """The known frames at once, then frame by frame, each level drawn before the next is computed."""
        until = min(until, self.tape.n_columns - 1)
        if self.player is None and until > 0:
            assert self.told is not None
            self.player = MagentaSteps(self.lm, self._conditions(0))
            self.player.read(self.tape.tokens[:, :, 1 : self.tape.n_known].clamp(0, self.lm.card - 1))
            self.at = self.tape.n_known - 1
        while self.at < until:
            assert self.player is not None
            self._state.copy_(self.player.state())
            if self.graphs.advance(self.at, self.at + 1) == self.at:
                self.levels(self.at)
            self.player.hear(self._played.clone())
            self.at += 1

    def levels(self, at: int | Tensor, reach: int = 0) -> None:
        """The codes of the frame behind column `at`, from its state, both of which lie in buffers of their own."""
        assert self.player is not None
        _, played = self.player.levels(self._state, partial(self._draw, at))
        self._played.copy_(played)

    def keep(self, rows: Sequence[int]) -> None:
        """Their rings go on."""
        index = torch.tensor(rows, device=self.tape.device)
        self._origins = self._origins.index_select(0, index)
        if self.player is not None:
            self.player.keep(index)
        self._buffers_replaced()
        self.told = None

    def sampling_changed(self) -> None:
        """Guidance is a condition."""
        self._tell()

    def _draw(self, at: int | Tensor, logits: Float[Tensor, "B 1 card"], level: int) -> Int[Tensor, "B 1"]:
        """A row that has ended before the others holds no codes there; whatever stands in for them is not kept."""
        return self.tape.draw(at, logits.float(), level).clamp(max=self.lm.card - 1)

    def _buffers_replaced(self) -> None:
        """Graphs that hold the old buffers are of no use any more."""
        self._written = self.tape.tokens
        self._state = self.lm.start(self.tape.n_rows).contiguous()
        self._played = torch.empty_like(self._state)
        me = proxy(self)  # graphs that held on to these steps would keep all buffers until the collector comes
        self.graphs = GraphedSteps(
            lambda at, reach: me.levels(at, reach), lambda at: 0, lambda: me.knobs.form, self.engine
        )

    def _tell(self) -> None:
        if self.player is not None and self.told is not None:
            self.player.follow(self._conditions(self.at))

    def _conditions(self, frame: int) -> MagentaConditions:
        """From a frame of the window on; the last ones stay."""
        assert self.told is not None
        told = self.told.guided(float(self.knobs.sampling.guidance))
        return told.frames(min(frame, told.n_frames - 1), told.n_frames).without_repeats()


def _largest(parts: Sequence[Told], shares: Float[Tensor, "parts B"]) -> Told:
    best, rows = shares.argmax(0).cpu(), torch.arange(shares.shape[1])
    n_frames = max(part.conditions.n_frames for part in parts)

    def chosen(name: str) -> Tensor:
        slots = [getattr(part.conditions, name) for part in parts]
        return torch.stack([values.expand(-1, n_frames, -1) for values in slots])[best, rows]

    conditions = MagentaConditions(*(chosen(name) for name in ("style", "notes", "drums", "strengths")))
    return Told(conditions, torch.stack([part.own_strengths for part in parts])[best, rows])
