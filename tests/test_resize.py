"""Resizing: up changes nothing, down is the best of its rank, and what it costs is told."""

import math

import pytest
import torch
from torch.testing import assert_close

from adapters.low_rank import LowRank
from adapters.resize import resize

NAME = "decoder.model.decoder.layers.0.fc1"


def low_rank(rank=4, **more):
    generator = torch.Generator().manual_seed(3)
    return LowRank(torch.randn(rank, 9, generator=generator), torch.randn(7, rank, generator=generator), 6.0, **more)


@pytest.mark.parametrize("more", [{}, {"rslora": True}, {"embedding": True}, {"magnitude": torch.rand(7) + 0.5}])
def test_a_higher_rank_is_the_same_update(more):
    update = low_rank(**more)
    weight = torch.randn(update.weight_shape)
    part = resize({NAME: update}, rank=6, seed=1)[NAME]
    assert part.update.rank == 6 and part.error == 0.0
    assert_close(part.update.delta(weight), update.delta(weight))
    assert part.update.scale == pytest.approx(update.scale)
    assert part.update.a[4:].abs().min() > 0, "new directions must be able to learn"
    assert not part.update.b[:, 4:].any()


def test_new_directions_follow_the_seed_and_are_as_large_as_the_old():
    one, same, other = (resize({NAME: low_rank()}, rank=7, seed=seed)[NAME].update.a for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert float(one[4:].std()) == pytest.approx(float(one[:4].std()), rel=0.4)


def test_no_rank_above_the_smaller_side():
    assert resize({NAME: low_rank()}, rank=50)[NAME].update.rank == 7


@pytest.mark.parametrize("more", [{}, {"rslora": True}, {"embedding": True}])
@pytest.mark.parametrize("rank", [1, 3])
def test_a_lower_rank_is_the_best_of_it(rank, more):
    update = low_rank(**more)
    delta = update.delta().double()
    part = resize({NAME: update}, rank=rank)[NAME]
    best = float(torch.linalg.svdvals(delta)[rank:].norm())
    assert part.update.rank == rank
    assert float((part.update.delta().double() - delta).norm()) == pytest.approx(best, rel=1e-4)
    assert part.error == pytest.approx(best / float(delta.norm()), rel=1e-4)


def test_energy_chooses_the_rank():
    values = torch.tensor([3.0, 2.0, 1.0, 0.1])
    update = LowRank(torch.eye(4, 9) * values[:, None], torch.eye(7, 4), 4.0)
    part = resize({NAME: update}, energy=0.99)[NAME]
    assert part.update.rank == 3
    assert part.error == pytest.approx(0.1 / math.sqrt(14.01), rel=1e-4)


def test_dora_keeps_its_magnitudes_and_resizes_its_direction():
    magnitude = torch.rand(7) + 0.5
    part = resize({NAME: low_rank(magnitude=magnitude)}, rank=2)[NAME]
    plain = resize({NAME: low_rank()}, rank=2)[NAME]
    assert part.update.magnitude is not None
    assert torch.equal(part.update.magnitude, magnitude)
    assert_close(part.update.product(), plain.update.product())


@pytest.mark.parametrize("wrong", [{}, {"rank": 2, "energy": 0.5}, {"rank": 0}, {"energy": 0.0}, {"energy": 1.1}])
def test_what_has_no_meaning_is_refused(wrong):
    with pytest.raises(ValueError, match="one of rank"):
        resize({NAME: low_rank()}, **wrong)
