"""The melody models' decode engine: MusicGen's, with melody and text as a prefix in front of the first step.

The prefix is read once per window, in the prefill. When a prompt changes in the middle of a window, all that was read
is read again behind the new prefix, as it would be without a cache; what was drawn stays drawn. Texts that are
cross-faded are mixed entry by entry.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from adapters.conditions import Condition, Conditions
from adapters.decode.engine import Blend
from adapters.decode.sampling import Knobs
from adapters.decode.tape import Tape
from adapters.family.musicgen.cross_attention import ConditionStates
from adapters.family.musicgen.engine import DecoderEngine, DecoderSteps
from adapters.family.musicgen.weights import DecoderWeights
from adapters.family.musicgen_melody.format import MELODY, MelodySpec
from adapters.family.musicgen_melody.prefix import melody_entries, text_entries
from data_prep.lm_spec import TEXT


@dataclass(frozen=True)
class Prefix:
    """What the rows read before the first step, and what their null rows read."""

    shown: Float[Tensor, "B P D"]
    null: Float[Tensor, "B P D"]


class MelodyEngine(DecoderEngine[Prefix]):
    """A melody model's weights, ready to play."""

    def encode(self, conditions: Conditions) -> Prefix:
        """Projected melody and text, and the null ones of as many entries."""
        everyone = torch.ones(len(conditions[TEXT].mask), dtype=torch.bool)
        return Prefix(self._projected(conditions), self._projected(conditions.dropped(everyone)))

    def states(self, conditions: Conditions) -> ConditionStates:
        """The prefix."""
        return ConditionStates([], prefix=self._projected(conditions))

    def start(self, tape: Tape, knobs: Knobs) -> "MelodySteps":
        """Begin a window."""
        return MelodySteps(self.weights, tape, knobs)

    def _projected(self, conditions: Conditions) -> Float[Tensor, "B P D"]:
        assert isinstance(self.spec, MelodySpec)
        given = conditions.to(self.device)
        melody = melody_entries(given[MELODY], self.spec.melody_entries).to(self.dtype)
        if self.weights.melody is not None:
            melody = _rows(self.weights.melody, melody)
        return torch.cat([melody, _text(self.weights, given[TEXT])], dim=1)


class MelodySteps(DecoderSteps[Prefix]):
    """A window of a melody model."""

    def __init__(self, weights: DecoderWeights, tape: Tape, knobs: Knobs) -> None:
        self._followed: list[Prefix] = []
        super().__init__(weights, tape, knobs)

    def follow(self, blend: Blend[Prefix]) -> None:
        """Another prefix; where the very same is asked for again, nothing is done."""
        if blend.shares is None and self._followed and blend.parts[0] is self._followed[0]:
            return
        self._followed = list(blend.parts) if blend.shares is None else []
        prefix = self._mixed(blend)
        held = self.states.prefix
        if held is not None and self.at and prefix.shape[1] < held.shape[1]:
            prefix = _lengthened(prefix, held.shape[1])  # what was read keeps its place
        if held is not None and held.shape == prefix.shape and torch.equal(held, prefix):
            return
        self.states = ConditionStates([], prefix=prefix)
        if held is None or held.shape[1] != prefix.shape[1]:
            self.cache = self._room()
            self._buffers_replaced()
        if self.at:
            self._read(self.at)

    def _mixed(self, blend: Blend[Prefix]) -> Float[Tensor, "N P D"]:
        """The rows' prefixes by their shares, then the null ones."""
        longest = max(part.shown.shape[1] for part in blend.parts)
        shown = [_lengthened(part.shown, longest) for part in blend.parts]
        null, shares = _lengthened(blend.parts[0].null, longest), self._shares(blend)
        if shares is None:
            return torch.cat([shown[0], null])
        mixed = torch.stack([part * share[..., None] for part, share in zip(shown, shares, strict=True)]).sum(0)
        return torch.cat([mixed, null])

    def keep(self, rows: Sequence[int]) -> None:
        """As every decoder's; the prefix of those that go on is compared anew."""
        self._followed = []
        super().keep(rows)


def _text(weights: DecoderWeights, text: Condition) -> Float[Tensor, "B L D"]:
    return text_entries(_rows(weights.text, text.values.to(weights.dtype)), text.mask)


def _rows(projection: object, x: Float[Tensor, "B n D_in"]) -> Float[Tensor, "B n D_out"]:
    assert callable(projection)
    return projection(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _lengthened(prefix: Float[Tensor, "B P D"], length: int) -> Float[Tensor, "B {length} D"]:
    """Zeros behind it, which is what the padding of a short text is."""
    return functional.pad(prefix, (0, 0, 0, length - prefix.shape[1]))
