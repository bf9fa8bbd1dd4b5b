"""What the sampler needs of any language model: an engine that holds its weights, and steps that hold one window.

A column is what one LM step predicts: up to K codes, arranged by the model's pattern. The columns of all rows lie on a
`Tape`. Steps read them from left to right and draw what follows through the tape, so a family decides alone how a
column comes about: all K codes at once, or level after level, each knowing those before. They own their state, be it a
key/value cache, a ring of frames or a recurrence.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adapters.conditions import Conditions
from adapters.decode.projections import Kind
from adapters.decode.sampling import Knobs
from adapters.decode.strengths import StrengthBank
from adapters.decode.tape import Tape
from adapters.low_rank import LowRank
from adapters.pattern import Pattern
from data_prep.lm_spec import LMSpec

Encoded = TypeVar("Encoded")
"""What an engine makes of a batch's conditions, once, to be read at every step."""


@dataclass(frozen=True)
class Packing:
    """How to lay weights out: arithmetic, place, and adapters by name with their updates by module name."""

    kind: Kind
    device: torch.device
    dtype: torch.dtype
    adapters: Mapping[str, Mapping[str, LowRank]] = field(default_factory=dict)
    merged_at: Mapping[str, float] | None = None
    """Strengths to merge the adapters in at; None keeps them live."""


@dataclass(frozen=True)
class Blend(Generic[Encoded]):
    """What the rows follow now: encoded conditions, and each one's share, `shares [parts, B, 1]`; None: there is one.

    The shares of a row sum to 1.
    """

    parts: Sequence[Encoded]
    shares: Float[Tensor, "parts B 1"] | None = None


class Steps(ABC, Generic[Encoded]):
    """One window in play: how much of its tape the model has read, and the state that stands for it."""

    at: int
    """Columns read so far."""

    @abstractmethod
    def follow(self, blend: Blend[Encoded]) -> None:
        """Other conditions from the next column on. What was read stays read as it was."""

    @abstractmethod
    def advance(self, until: int) -> None:
        """Read columns up to `until`, or the last that has a next, drawing each one's next; never waits for the device.

        From the start of a window the columns that are known are read at once (prefill).
        """

    @abstractmethod
    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only: the tape has dropped the others."""

    @abstractmethod
    def restart(self) -> None:
        """The tape was laid out anew: begin before its first column."""

    @abstractmethod
    def sampling_changed(self) -> None:
        """The knobs were turned; guidance may have been switched on or off."""


class Engine(ABC, Generic[Encoded]):
    """A model's weights, ready to play; any number of windows may be in play at once."""

    spec: LMSpec
    pattern: Pattern
    device: torch.device
    dtype: torch.dtype
    """Of activations."""
    strengths: StrengthBank
    """The live adapters."""
    bytes_per_step: int
    """Weight bytes that one step reads: what bounds its time."""

    @abstractmethod
    def quietly(self) -> AbstractContextManager[None]:
        """No gradients while this is open."""

    @abstractmethod
    def encode(self, conditions: Conditions) -> Encoded:
        """What `Steps.follow` takes: the conditions of all rows, projected where the model projects them."""

    @abstractmethod
    def start(self, tape: Tape, knobs: Knobs) -> Steps[Encoded]:
        """Begin a window."""

    def row_bytes(self, n_frames: int, *, passes: int) -> int:
        """What a piece takes while a window of so many frames is played; 0 where the family does not say."""
        return 0

    @abstractmethod
    def log_likelihoods(self, codes: Int[Tensor, "K T"], conditions: Conditions) -> Float[Tensor, "K T"]:
        """Log-likelihood in nats of every code of one piece, given its conditions and all that the model reads before.

        With the very weights that decoding uses; on the CPU.
        """
