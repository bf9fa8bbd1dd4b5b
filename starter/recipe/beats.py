"""Where in its bar a frame is: a second task that teaches the decoder to keep time.

When the next beat comes is the least part of what the codes of a frame say: trained on codes alone, a small decoder
hears the caption's tempo and drifts away from it. This head asks directly: how long until the next beat, and which
beat of the bar that is. It is not exported.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor, nn

from adapters.pattern import IGNORE
from starter.recipe.compose import RING_OUT_SEC
from starter.recipe.manners import MANNERS
from starter.recipe.sizes import FRAME_RATE_HZ

LONGEST_FRAMES = round(60 / min(manner.tempo_bpm[0] for manner in MANNERS) * FRAME_RATE_HZ)
MOST_BEATS = max(manner.beats_per_bar for manner in MANNERS)


class BeatsHead(nn.Module):
    """Two linear answers from the decoder's state at each step."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.countdown = nn.Linear(width, LONGEST_FRAMES + 1)
        self.beat = nn.Linear(width, MOST_BEATS)

    def forward(self, states: Float[Tensor, "B S D"], facts: Sequence[dict[str, Any]]) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropies in nats of `next_beats`; step s speaks of frame s, whose first code it is to predict."""
        told = (self.countdown(states), self.beat(states))
        asked = (target.to(states.device) for target in next_beats(facts, states.shape[1]))
        losses = [F.cross_entropy(a.float().flatten(0, 1), b.flatten()) for a, b in zip(told, asked, strict=True)]
        return dict(zip(("countdown", "beat"), losses, strict=True))


def next_beats(facts: Sequence[dict[str, Any]], n_frames: int) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Frames until the next beat, and the number of that beat in its bar, from 0; IGNORE after the last beat.

    A crop's facts say its first frame (`start_frame`) beside what the composer knows.
    """
    bpm, beats_per_bar, start, duration_sec = (
        torch.tensor([fact[name] for fact in facts])[:, None]
        for name in ("tempo_bpm", "beats_per_bar", "start_frame", "duration_sec")
    )
    now_sec = (start + torch.arange(n_frames)).double() / FRAME_RATE_HZ  # [B, T]
    beat_sec = 60 / bpm.double()
    # A beat that begins within this frame, as the codec hears it, is still ahead.
    index = torch.ceil((now_sec - 0.5 / FRAME_RATE_HZ) / beat_sec).long()
    countdown = ((index * beat_sec - now_sec) * FRAME_RATE_HZ).round().long().clamp(0, LONGEST_FRAMES)
    over = index >= ((duration_sec - RING_OUT_SEC) / beat_sec).round()
    return countdown.masked_fill(over, IGNORE), (index % beats_per_bar).masked_fill(over, IGNORE)
