"""What a caption says, told from its text states: a second task that teaches the text encoder while it is new.

Of a caption the language model needs little at a time, and of the gradient through it even less arrives: trained alone,
it learns how music goes on long before it learns what words mean. This head asks directly. It is not exported.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float
from torch import Tensor, nn

from starter.recipe.manners import FAMILIES, MANNERS

QUESTIONS: dict[str, tuple[object, ...]] = {
    "family": tuple(sorted(FAMILIES)),
    "manner": tuple(manner.name for manner in MANNERS),
    "drums": (False, True),
}
MIDDLE_BPM = 105.0


class FactsHead(nn.Module):
    """One linear answer per question, from the mean text state of a caption; tempo as a number."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.answers = nn.ModuleDict({name: nn.Linear(width, len(known)) for name, known in QUESTIONS.items()})
        self.tempo = nn.Linear(width, 1)

    def forward(
        self, states: Float[Tensor, "B L D"], mask: Bool[Tensor, "B L"], facts: Sequence[dict[str, Any]]
    ) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy of each question, and how far the tempo is off, in octaves times four. Zero of no caption.

        Rows without a caption (a mask of nothing) are not asked.
        """
        asked = mask.any(dim=1)
        facts = [fact for fact, row in zip(facts, asked.tolist(), strict=True) if row]
        heard = (states * mask[..., None]).sum(1)[asked] / mask.sum(1, keepdim=True)[asked]  # [B, D]
        if not facts:
            return dict.fromkeys((*QUESTIONS, "tempo"), heard.sum())
        losses = {}
        for name, known in QUESTIONS.items():
            target = torch.tensor([known.index(fact[name]) for fact in facts], device=heard.device)
            losses[name] = F.cross_entropy(self.answers[name](heard).float(), target)
        octaves = torch.tensor([math.log2(fact["tempo_bpm"] / MIDDLE_BPM) for fact in facts], device=heard.device)
        losses["tempo"] = F.l1_loss(self.tempo(heard)[:, 0].float(), 4 * octaves)
        return losses
