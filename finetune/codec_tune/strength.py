"""How far to go from the old decoder to the tuned one, so that other music keeps its sound.

Two decoders that share their beginning span a line, `old + strength * (tuned - old)`. Along it one's own songs gain
early and other music loses late, so a strength a little below 1 keeps most of the gain (Wortsman et al. 2021, "Robust
fine-tuning of zero-shot models", arXiv:2109.01903). The strength is chosen on songs that training never saw; it is one
number, so the same songs still measure it fairly well.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

STRENGTHS = tuple(round(1 - 0.05 * number, 2) for number in range(21))
"""1, 0.95, …, 0."""


@dataclass(frozen=True)
class Strength:
    """A place on the line, with the mel distances there of held-out songs and of held-out other music, in nats."""

    strength: float
    own: float
    other: float


def set_strength(decoder: nn.Module, old: Mapping[str, Tensor], tuned: Mapping[str, Tensor], strength: float) -> None:
    """Give the decoder the weights at this place of the line: 0 is the old decoder and 1 the tuned one, exactly."""
    between = {}
    for name, before in old.items():
        after = tuned[name].to(before.device)
        between[name] = torch.lerp(before, after, strength) if before.is_floating_point() else after
    decoder.load_state_dict(between)


def choose_strength(
    decoder: nn.Module,
    old: Mapping[str, Tensor],
    tuned: Mapping[str, Tensor],
    *,
    own: Callable[[], float],
    other: Callable[[], float],
    other_at_most: float,
) -> Strength:
    """Go back from the tuned decoder until other music is at most at `other_at_most`; the decoder is left there.

    `own` and `other` measure the decoder as it is. At strength 0 the decoder is the old one, whatever it measures.
    """
    for strength in STRENGTHS:
        set_strength(decoder, old, tuned, strength)
        distance = other()
        if distance <= other_at_most or strength == 0:
            return Strength(strength, own(), distance)
    raise AssertionError("the last strength is 0")
