"""What smaller weights cost, measured where it counts: the loss they add on clips that nobody trained on.

An arithmetic passes its gate when the mean cross-entropy of the clips' codes rises by no more than `GATES` says, in
nats a code, against fp32 of the same base. The gates are this project's own choice: what a listener could hear starts
far above them, an error in packing or quantising does too. It knows nothing of how fast an arithmetic is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adapters.conditions import Conditions
from adapters.decode.engine import Engine

GATES = {"fp16": 0.001, "bf16": 0.01, "int8": 0.02, "bnb-int8": 0.02, "nf4": 0.1}
"""Nats a code. `bnb-int8` and `nf4` are the layouts that training on a small card uses, and previews in it."""

GateClip = tuple[Int[Tensor, "K _"], Float[Tensor, "_ D_text"]]
"""Codes, and the text states that go with them."""


@dataclass(frozen=True)
class Added:
    """What one arithmetic adds to the loss of another, nats a code."""

    name: str
    loss: float
    mean: float
    largest: float
    """Of any single code, up or down."""

    @property
    def passes(self) -> bool:
        """Whether it may be used; NaN never passes."""
        return self.mean <= GATES[self.name]

    def __str__(self) -> str:
        verdict = "passes" if self.passes else "FAILS"
        return (
            f"{self.name:<10}loss {self.loss:.4f}, adds {self.mean:+.5f} (largest of one code {self.largest:.3f}); "
            f"{verdict} its gate of {GATES[self.name]:g}"
        )


def losses(engine: Engine, clips: Sequence[GateClip]) -> Float[Tensor, " N"]:
    """Cross-entropy of every code of all clips."""
    with engine.quietly():
        return -torch.cat([engine.log_likelihoods(codes, _text(states)).flatten() for codes, states in clips])


def added(name: str, exact: Float[Tensor, " N"], other: Float[Tensor, " N"]) -> Added:
    """Compare the losses of the same clips."""
    difference = other - exact
    return Added(name, float(other.mean()), float(difference.mean()), float(difference.abs().max()))


def _text(states: Float[Tensor, "L D_text"]) -> Conditions:
    return Conditions.of_text(states[None], torch.ones(1, len(states), dtype=torch.bool))
