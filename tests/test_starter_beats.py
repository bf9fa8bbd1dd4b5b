"""The beats that the starter's decoder is asked for while it learns."""

import numpy as np
import pytest
import torch

pytest.importorskip("vector_quantize_pytorch", reason="the recipe's own dependency (group `recipe`)")

from adapters.pattern import IGNORE
from starter.recipe.beats import LONGEST_FRAMES, BeatsHead, next_beats
from starter.recipe.compose import compose
from starter.recipe.sizes import FRAME_RATE_HZ


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("start_frame", [0, 137])
def test_beats_ahead_are_the_composers(seed: int, start_frame: int) -> None:
    """Each frame's countdown lands within a frame of a beat that the composer wrote, and names its place in the bar."""
    piece = compose(seed)
    facts = piece.facts() | {"start_frame": start_frame}
    countdown, beat = (target[0].numpy() for target in next_beats([facts], 900))
    ahead = countdown != IGNORE
    assert ahead.any() and not ahead.all()
    assert ((beat != IGNORE) == ahead).all()
    assert countdown[ahead].max() <= LONGEST_FRAMES
    now_sec = (start_frame + np.arange(900)) / FRAME_RATE_HZ
    said_sec = (now_sec + countdown / FRAME_RATE_HZ)[ahead]
    distance = np.abs(said_sec[:, None] - np.array(piece.beats_sec))
    assert distance.min(axis=1).max() <= 0.51 / FRAME_RATE_HZ
    assert (distance.argmin(axis=1) % piece.beats_per_bar == beat[ahead]).all()
    assert now_sec[~ahead].min() >= piece.beats_sec[-1]
    # It is the next beat, not a later one.
    waits = [min(at - now for at in piece.beats_sec if at >= now - 0.5 / FRAME_RATE_HZ) for now in now_sec[ahead]]
    assert np.abs(np.array(waits) * FRAME_RATE_HZ - countdown[ahead]).max() <= 0.51


def test_the_head_learns_to_count() -> None:
    torch.manual_seed(0)
    facts = [compose(seed).facts() | {"start_frame": 0} for seed in range(3)]
    countdown, _ = next_beats(facts, 60)
    states = torch.nn.functional.one_hot(countdown.clamp(0)) * 10.0
    head = BeatsHead(states.shape[2])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(60):
        losses = head(states, facts)
        optimizer.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()
        optimizer.step()
    assert losses["countdown"] < 0.1
    assert losses["beat"] > 0.2  # the states do not say which beat it is
