"""MusicGen's decode engine: packed weights, a preallocated key/value cache, CUDA graphs where there is a GPU.

Transformers' own tokens, several times sooner. `MusicgenSteps` reads a tape column by column: the known beginning in
one pass (prefill), then one column at a time; with guidance the null rows are read beside the others.
"""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar
from weakref import proxy

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from adapters.added_conditions.attach import AddedConditions
from adapters.added_conditions.prefix import Prefix
from adapters.conditions import Conditions
from adapters.decode.cuda_graphs import GraphedSteps
from adapters.decode.engine import Blend, Encoded, Engine, Packing, Steps
from adapters.decode.log_likelihood import of_tape
from adapters.decode.sampling import Knobs, guide
from adapters.decode.tape import Tape
from adapters.family.musicgen.borrow import borrow
from adapters.family.musicgen.cross_attention import ConditionStates, TextStates, text_states
from adapters.family.musicgen.decoder import (
    Attend,
    Rows,
    attend_from_start,
    attend_in_bucket,
    embed,
    logits,
    run_layers,
)
from adapters.family.musicgen.kv_cache import KeyValueCache, bucket
from adapters.family.musicgen.weights import DecoderWeights, pack
from adapters.pattern_names import pattern_of
from data_prep.lm_spec import TEXT, LMSpec

Made = TypeVar("Made", bound="DecoderEngine[Any]")


class DecoderEngine(Engine[Encoded]):
    """A MusicGen decoder's weights, ready to play, whatever its conditions are."""

    def __init__(self, weights: DecoderWeights, added: AddedConditions | None = None) -> None:
        self.weights = weights
        self.spec = weights.spec
        self.pattern = pattern_of(weights.spec)
        self.device, self.dtype, self.strengths = weights.device, weights.dtype, weights.strengths
        self.bytes_per_step = weights.bytes_per_step
        self.added = None if added is None else added.to(self.device)

    @classmethod
    def pack(cls: type[Made], lm: nn.Module, spec: LMSpec, packing: Packing) -> Made:
        """With weights of its own, adapters included. `lm` may be transformers' whole model; it is not changed.

        Raises:
            UserError: an adapter touches a module that has no counterpart here.
        """
        return cls(pack(lm, spec, packing), getattr(lm, "added", None))

    @classmethod
    def borrow(cls: type[Made], lm: nn.Module, spec: LMSpec) -> Made:
        """Around modules that stay where they are."""
        return cls(borrow(lm, spec), getattr(lm, "added", None))

    def quietly(self) -> AbstractContextManager[None]:
        """No gradients; for weights of our own in inference mode, which saves a seventh of what calls cost."""
        return self.weights.quietly()

    @abstractmethod
    def states(self, conditions: Conditions) -> ConditionStates:
        """What the decoder reads of these conditions, for one row without guidance."""

    def row_bytes(self, n_frames: int, *, passes: int) -> int:
        """Keys and values of self-attention, the null rows' too, and the widest activations of reading a window."""
        weights, spec = self.weights, self.spec
        n_columns = 1 + spec.steps(n_frames) + (0 if self.added is None else self.added.places_in_front(n_frames))
        cache = 2 * spec.layers * spec.hidden * bucket(n_columns) * weights.cache_dtype.itemsize
        reading = n_columns * (4 * spec.hidden + 2 * spec.ffn) * weights.dtype.itemsize
        return (cache + reading) * passes

    def log_likelihoods(self, codes: Int[Tensor, "K T"], conditions: Conditions) -> Float[Tensor, "K T"]:
        """In one pass over the whole piece, without guidance."""
        return of_tape(self.pattern, self.spec.special, codes, lambda columns: self._all_logits(columns, conditions))

    @torch.no_grad()
    def _all_logits(self, columns: Int[Tensor, "1 K S"], conditions: Conditions) -> Float[Tensor, "1 K S card"]:
        weights, n_steps = self.weights, columns.shape[2]
        states, x = self.states(conditions), embed(weights, columns.to(self.device))  # [1, S, D]
        x = (x + _first(_added_of(states), x))[0]
        before, front = _before(states), None
        if states.prefix is not None:
            x = torch.cat([states.prefix[0], x])
        x = x + weights.positions(len(x))
        if before is not None:
            x, front = torch.cat([before.entries[0].to(x), x]), before.mask
        cache = KeyValueCache(self.spec, 1, len(x), self.device, weights.cache_dtype)
        hidden = run_layers(weights, x, Rows(1, 1), states, attend_from_start(cache, 0, front))
        return logits(weights, hidden[-n_steps:]).transpose(0, 1)[None]

    def _added(self, conditions: Conditions) -> Float[Tensor, "B S D"] | None:
        """For as many steps as the condition has frames."""
        kinds = [] if self.added is None else [held for name in self.added.kinds if (held := conditions.get(name))]
        if self.added is None or not kinds:
            return None
        n_frames = max(held.mask.shape[1] for held in kinds)
        if self.spec.pattern is not None and self.spec.pattern.span_frames:
            n_frames = min(n_frames, self.spec.pattern.span_frames)
        n_steps = self.pattern.n_steps(n_frames)
        with torch.no_grad():
            found = self.added(conditions.to(self.device), self.pattern, n_steps)
        return None if found is None else found.to(self.dtype)

    def _prefix(self, conditions: Conditions) -> Prefix | None:
        """What stands before the first step; None where no row has anything."""
        if self.added is None:
            return None
        with torch.no_grad():
            found = self.added.prefix(conditions.to(self.device), self.pattern, self.weights.positions)
        if found is None or not found.mask.any():
            return None
        return Prefix(found.entries.to(self.dtype), found.mask)


class MusicgenEngine(DecoderEngine[TextStates]):
    """The engine of the text-to-music models: text enters by cross-attention."""

    def encode(self, conditions: Conditions) -> TextStates:
        """Keys and values of cross-attention in every layer, what is added to each step's input, and the prefix."""
        states = text_states(self.weights, conditions[TEXT])
        states.added, states.before = self._added(conditions), self._prefix(conditions)
        return states

    def states(self, conditions: Conditions) -> ConditionStates:
        """One text."""
        return ConditionStates([self.encode(conditions)])

    def start(self, tape: Tape, knobs: Knobs) -> "MusicgenSteps":
        """Begin a window."""
        return MusicgenSteps(self.weights, tape, knobs)


class DecoderSteps(Steps[Encoded]):
    """A window in play. `states` is what the decoder follows; a captured graph reads a copy that only it rewrites."""

    def __init__(self, weights: DecoderWeights, tape: Tape, knobs: Knobs) -> None:
        self.weights, self.tape, self.knobs = weights, tape, knobs
        self.states = ConditionStates([])
        self.added: Tensor | None = None  # [B, S, D], for every column of the window
        self.before: Prefix | None = None  # of an adapter, for B rows
        self._front: Prefix | None = None  # the same for the rows of all passes
        self.rows = Rows(tape.n_rows, knobs.sampling.passes)
        self.cache = KeyValueCache(weights.spec, 0, 0, weights.device, weights.cache_dtype)
        self._read_from: Tensor | None = None
        self.restart()

    def restart(self) -> None:
        """Buffers are kept where the tape kept its own."""
        self.at = 0
        cache = self._room()
        if cache is self.cache and self.tape.tokens is self._read_from:
            return
        self.cache = cache
        self._buffers_replaced()

    def advance(self, until: int) -> None:
        """Read columns up to `until`; graphs replay where there are any."""
        until = min(until, self.tape.n_columns - 1)
        if self.at == 0 and until > 0:
            self._prefill(self.tape.n_known)
        if self.at < until and self.graphs.usable:
            self.at = self.graphs.advance(self.at, until)
        while self.at < until:
            self._decode_step()

    def keep(self, rows: Sequence[int]) -> None:
        """Their keys, values and texts go on; those of the others are dropped."""
        index = torch.tensor(rows, device=self.weights.device)
        self.states = self.states.keep(index)
        self.added = None if self.added is None else self.added.index_select(0, index)
        self.before = None if self.before is None else self.before.keep(index)
        passes = range(self.rows.passes)
        self.cache.keep(torch.cat([index + number * self.rows.n_text for number in passes]))
        self.rows = Rows(len(rows), self.rows.passes)
        self._buffers_replaced()

    def sampling_changed(self) -> None:
        """Where guidance comes or goes, the null rows must too: what was read so far is read again."""
        passes = self.knobs.sampling.passes
        if passes == self.rows.passes:
            return
        self.rows = Rows(self.rows.n_text, passes)
        self.cache = self._room()
        self._buffers_replaced()
        if self.at:
            self._prefill(self.at)

    def captured_step(self, at: Tensor, reach: int) -> None:
        """One step with its place `at [1]` on the device and fixed shapes: what a CUDA graph captures."""
        x = embed(self.weights, self.tape.tokens.index_select(2, at))[:, 0]  # [B, D]
        x = x + self.positions.index_select(0, at)
        shown = x if self.added is None else x + self.added.index_select(1, at)[:, 0]
        x = self._all_passes(shown, x)
        hidden = self._layers(x, attend_in_bucket(self.cache, at + self._offset, reach, self._mask))
        self._draw(hidden, at)
        at += 1

    @property
    def _offset(self) -> int:
        """Places that a condition's prefix takes before the first step."""
        return self._base_offset + (0 if self.before is None else len(self.before))

    @property
    def _base_offset(self) -> int:
        """Of these, those of a base with prefixes of its own: its steps' positions count on from them."""
        return 0 if self.states.prefix is None else self.states.prefix.shape[1]

    @property
    def _mask(self) -> Tensor | None:
        """Which of the places before the first step each row sees; None: all of them."""
        return None if self._front is None else self._front.mask

    def _prefill(self, n: int) -> None:
        """Read the first n columns at once and draw the next."""
        hidden = self._read(n)
        self.at = n
        if n < self.tape.n_columns:
            self._draw(hidden[:, -1], n - 1)

    def _read(self, n: int) -> Tensor:
        """Hidden states [N, P + n, D] of the prefix and the first n columns, at once, from an empty cache."""
        x = embed(self.weights, self.tape.tokens[:, :, :n])  # [B, n, D]
        shown = x if self.added is None else x + self.added[:, :n]
        x = self._all_passes(shown, x) + self.positions[:n]
        if self.states.prefix is not None:
            own = self.states.prefix[: self.rows.n] + self.weights.positions(self._base_offset)
            x = torch.cat([own, x], dim=1)
        if self._front is not None:
            x = torch.cat([self._front.entries, x], dim=1)
        return self._layers(x.flatten(0, 1), attend_from_start(self.cache, 0, self._mask)).view(x.shape)

    def _decode_step(self) -> None:
        """One column with its place known to the host: attention reads exactly what was played."""
        x = embed(self.weights, self.tape.tokens[:, :, self.at : self.at + 1])[:, 0]  # [B, D]
        x = x + self.positions[self.at]
        shown = x if self.added is None else x + self.added[:, self.at]
        x = self._all_passes(shown, x)
        hidden = self._layers(x, attend_from_start(self.cache, self._offset + self.at, self._mask))
        self._draw(hidden, self.at)
        self.at += 1

    def _layers(self, x: Tensor, attend: Attend) -> Tensor:
        return run_layers(self.weights, x, self.rows, self.states, attend)

    def _all_passes(self, shown: Tensor, plain: Tensor) -> Tensor:
        """Rows of every pass: what is added to the input is part of all but the last, the null rows."""
        passes = self.rows.passes
        return shown if passes == 1 else torch.cat([*[shown] * (passes - 1), plain])

    def _draw(self, hidden: Tensor, at: int | Tensor) -> None:
        """All K codes of the column behind `at`."""
        self.tape.draw(at, guide(logits(self.weights, hidden), self.knobs, self.rows.n_text, self.rows.passes))

    def _hear(self, added: Tensor | None) -> None:
        """What is added from here on, in the same buffer where it fits, so that graphs stay good."""
        if added is None and self.added is None:
            return
        if added is None or self.added is None or self.added.shape[1] != self.tape.n_columns:
            spec, shape = self.weights.spec, (self.tape.n_rows, self.tape.n_columns)
            self.added = None if added is None else torch.zeros(*shape, spec.hidden, device=self.weights.device)
            self.added = None if self.added is None else self.added.to(self.weights.dtype)
            self._buffers_replaced()
        if self.added is not None:
            self.added.copy_(_first(added, self.added))

    def _put_before(self, before: Prefix | None) -> None:
        """Another prefix: all that was read is read again behind it, and what was drawn stays drawn."""
        held = self.before
        if before is held:
            return
        if before is not None and held is not None:
            before = before.lengthened(max(len(before), len(held) if self.at else 0))
            if before.equals(held):
                return
        self.before = before
        self.cache = self._room()
        self._buffers_replaced()
        if self.at:
            self._read(self.at)

    def _shares(self, blend: Blend[Encoded]) -> Tensor | None:
        return None if blend.shares is None else blend.shares.to(self.weights.device, self.weights.dtype)

    def _room(self) -> KeyValueCache:
        needed = self.tape.n_columns + self._offset
        if self.cache.keys.shape[1] == self.rows.n and needed <= self.cache.capacity:
            return self.cache
        return KeyValueCache(self.weights.spec, self.rows.n, needed, self.weights.device, self.weights.cache_dtype)

    def _buffers_replaced(self) -> None:
        """Graphs that hold the old buffers are of no use any more."""
        self._read_from = self.tape.tokens
        self.positions = self.weights.positions(self._base_offset + self.tape.n_columns)[self._base_offset :]
        self._front = None if self.before is None else self.before.for_passes(self.rows.passes)
        me = proxy(self)  # graphs that held on to these steps would keep all buffers until the collector comes
        self.graphs = GraphedSteps(
            lambda at, reach: me.captured_step(at, reach), lambda at: me._reach(at), lambda: me.knobs.form, self.weights
        )

    def _reach(self, at: int) -> int:
        """Places that attention must see for this step, in steps of a bucket."""
        return self.cache.reach(self._offset + at + 1)


class MusicgenSteps(DecoderSteps[TextStates]):
    """A window of a text-to-music model."""

    def follow(self, blend: Blend[TextStates]) -> None:
        """Another text, or other shares of several. What an adapter adds or puts before is the same beside each."""
        self._hear(blend.parts[0].added)
        self._put_before(blend.parts[0].before)
        states = ConditionStates(list(blend.parts), self._shares(blend))
        if not self.graphs.usable:
            self.states = states
        elif not self.states.take_over(states):
            self.states = states.own()
            self._buffers_replaced()


def _before(states: ConditionStates) -> Prefix | None:
    return states.parts[0].before if states.parts else None


def _added_of(states: ConditionStates) -> Tensor | None:
    return states.parts[0].added if states.parts else None


def _first(added: Float[Tensor, "B n D"] | None, like: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
    """The first S steps of what is added; zeros behind its end, or where there is nothing."""
    if added is None:
        return torch.zeros_like(like)
    kept = added[:, : like.shape[1]]
    return functional.pad(kept, (0, 0, 0, like.shape[1] - kept.shape[1]))
