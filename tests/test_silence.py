"""Silence in a piece is counted by windows."""

import pytest
import torch

from finetune.silence import silent_share


def test_half_of_a_piece_is_silent():
    tone = torch.sin(torch.arange(8_000) * 0.1)
    piece = torch.stack([torch.cat([tone, torch.zeros(8_000)]), torch.zeros(16_000)])
    assert silent_share(piece, 8_000) == pytest.approx(0.5)
    assert silent_share(piece * 1e-4, 8_000) == 1.0
    assert silent_share(tone[None, :20], 8_000) == 0.0
