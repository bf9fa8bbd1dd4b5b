"""Blending, against slow references on dense ΔW: plain loops over the papers' formulas, in fp64."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from adapters.blend import sparse
from adapters.blend.run import DENSITY, METHODS, Method, Recipe, blend
from adapters.blend.slerp import slerp_weights
from adapters.blend.sources import Part, Source, inner
from adapters.blend.truncate import from_dense, from_product
from adapters.low_rank import LowRank
from configs.errors import UserError

PLAIN, TABLE = "decoder.model.decoder.layers.0.self_attn.q_proj", "decoder.model.decoder.embed_tokens.0"


def low_rank(seed, rank, rows=6, columns=9, alpha=5.0, **more):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rank, columns, generator=generator), torch.randn(rows, rank, generator=generator)
    return LowRank(a, b, alpha, **more)


def source(name, seed, rank, weight=1.0, **more):
    table = low_rank(seed + 1000, rank, embedding=True, **more)
    return Source(name, {PLAIN: low_rank(seed, rank, **more), TABLE: table}, weight)


def dense(update):
    """scale · B A by loops, in fp64 and in the weight's layout."""
    scale = update.alpha / (math.sqrt(update.rank) if update.rslora else update.rank)
    rows, columns = update.b.shape[0], update.a.shape[1]
    out = torch.zeros(rows, columns, dtype=torch.float64)
    for row, column, r in itertools.product(range(rows), range(columns), range(update.rank)):
        out[row, column] += scale * float(update.b[row, r]) * float(update.a[r, column])
    return out.T if update.embedding else out


def summed(sources, module):
    out = torch.zeros(sources[0].updates[module].weight_shape, dtype=torch.float64)
    for item in sources:
        out += item.weight * dense(item.updates[module]) if module in item.updates else 0
    return out


def best_error(delta, rank):
    """What the best matrix of this rank must miss, by the full SVD."""
    return float(torch.linalg.svdvals(delta)[rank:].norm())


def mixed():
    return [
        source("a", 1, 2, 0.7),
        source("b", 2, 4, 0.3, rslora=True),
        Source("c", {PLAIN: low_rank(3, 1, alpha=2.0)}, -0.5),
    ]


def test_concatenation_is_exact_for_mixed_ranks_rslora_and_negative_weights():
    sources = mixed()
    result = blend(sources, Recipe())
    assert result.error == 0.0
    assert result.updates[PLAIN].rank == 7 and result.updates[TABLE].rank == 6
    for module, update in result.updates.items():
        assert_close(dense(update), summed(sources, module), rtol=1e-6, atol=1e-6)
        assert not update.rslora and update.alpha == update.rank
        assert update.embedding == (module == TABLE)


def test_one_adapter_in_two_parts_is_itself():
    """peft's `linear` gives 1.92 times the adapter here."""
    whole = low_rank(1, 3)
    halves = [Source("a", {PLAIN: whole}, 0.7), Source("a", {PLAIN: whole}, 0.3)]
    ways: list[tuple[Method, int | None]] = [("concatenate", None), ("svd", 3), ("task-arithmetic", None)]
    for method, rank in ways:
        update = blend(halves, Recipe(method, rank)).updates[PLAIN]
        assert_close(dense(update), dense(whole), rtol=1e-5, atol=1e-5)


def test_an_adapter_taken_away_from_itself_is_nothing():
    gone = blend([source("a", 1, 2), source("a", 1, 2, -1.0)], Recipe("svd", rank=4))
    for part in gone.modules.values():
        assert part.error == pytest.approx(0, abs=1e-6)
        assert float(dense(part.update).abs().max()) < 1e-6


@pytest.mark.parametrize("rank", [1, 2, 5, 50])
def test_svd_is_the_best_of_its_rank_and_tells_its_error(rank):
    sources = mixed()
    result = blend(sources, Recipe("svd", rank=rank))
    norms, missing = [], []
    for module, part in result.modules.items():
        wanted = summed(sources, module)
        assert part.update.rank <= rank
        lost = float((wanted - dense(part.update)).norm())
        assert lost == pytest.approx(best_error(wanted, rank), abs=1e-5)
        assert part.error == pytest.approx(lost / float(wanted.norm()), abs=1e-5)
        norms.append(float(wanted.norm()))
        missing.append(lost)
    assert result.error == pytest.approx(math.hypot(*missing) / math.hypot(*norms), abs=1e-5)
    assert result.energy == pytest.approx(1 - result.error**2)


@given(st.integers(1, 6), st.integers(1, 8), st.integers(1, 8), st.integers(1, 9), st.integers(0, 2**20))
@settings(max_examples=40, deadline=None)
def test_both_ways_to_truncate_agree_with_the_full_svd(rank, rows, columns, inside, seed):
    generator = torch.Generator().manual_seed(seed)
    b = torch.randn(rows, inside, generator=generator, dtype=torch.float64)
    a = torch.randn(inside, columns, generator=generator, dtype=torch.float64)
    delta = b @ a
    for part in (from_product(b, a, rank=rank), from_dense(delta, rank=rank)):
        assert part.update.rank <= min(rank, rows, columns)
        assert part.norm == pytest.approx(float(delta.norm()), rel=1e-6)
        assert part.missing == pytest.approx(best_error(delta, rank), abs=1e-5 * part.norm)
        assert_close(float((dense(part.update) - delta).norm()), part.missing, rtol=1e-3, atol=1e-5 * part.norm)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999, 1.0])
def test_energy_takes_the_lowest_rank_that_keeps_the_share(share):
    delta = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0])).double()
    squares = [16, 9, 4, 1]
    wanted = next(n for n in range(1, 5) if sum(squares[:n]) >= share * 30)
    for part in (from_dense(delta, energy=share), from_product(delta, torch.eye(5).double(), energy=share)):
        assert part.update.rank == wanted
        assert part.energy == pytest.approx(sum(squares[:wanted]) / 30, abs=1e-6)


def test_truncated_factors_are_of_equal_size():
    part = from_dense(torch.randn(7, 5, dtype=torch.float64), rank=2)
    assert_close(part.update.a.norm(dim=1), part.update.b.norm(dim=0))


def test_task_arithmetic_scales_the_sum():
    sources = mixed()
    update = blend(sources, Recipe("task-arithmetic", scale=0.4)).updates[PLAIN]
    assert_close(dense(update), 0.4 * summed(sources, PLAIN), rtol=1e-5, atol=1e-6)


def trimmed(delta, density):
    kept = max(1, round(density * delta.numel()))
    order = sorted(range(delta.numel()), key=lambda place: -abs(float(delta.flatten()[place])))
    out = torch.zeros_like(delta).flatten()
    for place in order[:kept]:
        out[place] = delta.flatten()[place]
    return out.view_as(delta)


def ties(deltas):
    out = torch.zeros_like(deltas[0])
    for row, column in itertools.product(*map(range, out.shape)):
        values = [float(delta[row, column]) for delta in deltas]
        positive, negative = sum(v for v in values if v > 0), -sum(v for v in values if v < 0)
        agreeing = [v for v in values if (v > 0 if positive > negative else v < 0)]
        if positive != negative and agreeing:
            out[row, column] = sum(agreeing) / len(agreeing)
    return out


@pytest.mark.parametrize("density", [None, 0.5, 1.0])
def test_ties_follows_its_algorithm(density):
    sources = mixed()
    result = blend(sources, Recipe("ties", rank=6, density=density, scale=1.5))
    for module in (PLAIN, TABLE):
        parts = [s.weight * trimmed(dense(s.updates[module]), density or 0.2) for s in sources if module in s.updates]
        assert_close(dense(result.updates[module]), 1.5 * ties(parts), rtol=1e-4, atol=1e-5)


def test_ties_votes_by_size_and_averages_the_agreeing():
    deltas = torch.tensor([[[3.0, 1.0, 0.0, 2.0]], [[-1.0, -1.0, 0.0, 4.0]], [[-1.0, 0.0, -2.0, 0.0]]])
    assert_close(sparse.elect(deltas), torch.tensor([[3.0, 0.0, -2.0, 3.0]]))


def test_dare_drops_by_seed_and_keeps_the_mean():
    delta = torch.randn(200, 100, dtype=torch.float64)
    once = sparse.drop(delta, 0.3, sparse.draw_of(7, 0, PLAIN))
    assert torch.equal(once, sparse.drop(delta, 0.3, sparse.draw_of(7, 0, PLAIN)))
    kept = once != 0
    assert_close(once[kept], delta[kept] / 0.3)
    assert float(kept.double().mean()) == pytest.approx(0.3, abs=0.015)
    others = [sparse.draw_of(8, 0, PLAIN), sparse.draw_of(7, 1, PLAIN), sparse.draw_of(7, 0, TABLE)]
    assert all(not torch.equal(once, sparse.drop(delta, 0.3, other)) for other in others)


@pytest.mark.parametrize("method", ["dare", "dare-ties"])
def test_dare_blends_are_their_masks(method):
    sources = [source("a", 1, 2, 0.7), source("b", 2, 3, -0.4)]
    result = blend(sources, Recipe(method, rank=6, density=0.6, seed=11))
    for module in (PLAIN, TABLE):
        masked = []
        for number, item in enumerate(sources):
            delta = dense(item.updates[module])
            uniform = torch.rand(delta.shape, generator=sparse.draw_of(11, number, module), dtype=torch.float64)
            masked.append(item.weight * torch.where(uniform < 0.6, delta / 0.6, 0))
        wanted = ties(masked) if method == "dare-ties" else sum(masked)
        assert_close(dense(result.updates[module]), wanted, rtol=1e-4, atol=1e-5)


def test_prune_keeps_the_largest():
    sources = mixed()
    result = blend(sources, Recipe("prune", rank=6, density=0.25))
    wanted = sum(s.weight * trimmed(dense(s.updates[PLAIN]), 0.25) for s in sources)
    assert_close(dense(result.updates[PLAIN]), wanted, rtol=1e-4, atol=1e-5)


def test_sparse_blends_tell_what_low_rank_costs():
    sources = mixed()
    part = blend(sources, Recipe("ties", rank=2)).modules[PLAIN]
    wanted = ties([s.weight * trimmed(dense(s.updates[PLAIN]), 0.2) for s in sources])
    assert part.error == pytest.approx(best_error(wanted, 2) / float(wanted.norm()), abs=1e-5)
    assert part.error > 0.05
    assert blend(sources, Recipe("ties")).updates[PLAIN].rank <= 7


def slerped(one, other, fraction):
    cosine = float((one * other).sum() / (one.norm() * other.norm()))
    angle = math.acos(max(-1, min(1, cosine)))
    if math.sin(angle) < 1e-6:
        return (1 - fraction) * one + fraction * other
    return (math.sin((1 - fraction) * angle) * one + math.sin(fraction * angle) * other) / math.sin(angle)


@pytest.mark.parametrize("weights", [(1.0, 0.0), (3.0, 1.0), (0.5, 0.5), (0.0, 2.0)])
def test_slerp_follows_the_arc(weights):
    sources = [source("a", 1, 2, weights[0]), source("b", 2, 3, weights[1])]
    result = blend(sources, Recipe("slerp"))
    fraction = weights[1] / sum(weights)
    for module in (PLAIN, TABLE):
        one, other = (dense(item.updates[module]) for item in sources)
        assert_close(dense(result.updates[module]), slerped(one, other, fraction), rtol=1e-5, atol=1e-5)


def test_slerp_is_straight_where_there_is_no_arc():
    same = [Source("a", {PLAIN: low_rank(1, 2)}, 3.0), Source("b", {PLAIN: low_rank(1, 2)}, 1.0)]
    assert_close(dense(blend(same, Recipe("slerp")).updates[PLAIN]), dense(low_rank(1, 2)), rtol=1e-5, atol=1e-5)
    alone = [Source("a", {PLAIN: low_rank(1, 2)}, 3.0), Source("b", {TABLE: low_rank(2, 2, embedding=True)}, 1.0)]
    assert_close(dense(blend(alone, Recipe("slerp")).updates[PLAIN]), 0.75 * dense(low_rank(1, 2)))
    zero = LowRank(torch.zeros(2, 9), torch.zeros(6, 2), 1.0)
    assert slerp_weights([Part(low_rank(1, 2), 1.0, 0), Part(zero, 1.0, 1)], 0.25) == [0.75, 0.25]


def test_inner_product_needs_no_dense_matrix():
    one, other = low_rank(1, 2), low_rank(2, 4, rslora=True)
    expected = float((dense(one) * dense(other)).sum())
    assert inner(Part(one, 1.0, 0), Part(other, 1.0, 1)) == pytest.approx(expected, rel=1e-6)


def dora_source(weight):
    plain = low_rank(5, 2)
    return Source("d", {PLAIN: LowRank(plain.a, plain.b, plain.alpha, magnitude=torch.rand(6) + 0.5)}, weight)


@pytest.mark.parametrize("method", ["svd", "task-arithmetic", "slerp", "ties"])
def test_dora_goes_through_the_base(method):
    base = torch.randn(6, 9)
    sources = [dora_source(0.8), Source("a", {PLAIN: low_rank(1, 2)}, 0.4)]
    update = sources[0].updates[PLAIN]
    assert update.magnitude is not None
    moved = base.double() + dense(LowRank(update.a, update.b, update.alpha))
    moved = moved * (update.magnitude.double() / moved.norm(dim=1))[:, None]
    deltas = [moved - base.double(), dense(sources[1].updates[PLAIN])]
    wanted = {
        "svd": 0.8 * deltas[0] + 0.4 * deltas[1],
        "task-arithmetic": 0.8 * deltas[0] + 0.4 * deltas[1],
        "slerp": slerped(deltas[0], deltas[1], 1 / 3),
        "ties": ties([0.8 * trimmed(deltas[0], 0.2), 0.4 * trimmed(deltas[1], 0.2)]),
    }[method]
    update = blend(sources, Recipe(method, rank=6), lambda module: base).updates[PLAIN]
    assert_close(dense(update), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="needs the base"):
        blend(sources, Recipe(method, rank=6))


def test_dora_has_no_exact_sum():
    with pytest.raises(UserError, match="full rank"):
        blend([dora_source(1.0)], Recipe(), lambda module: torch.randn(6, 9))


REFUSED = {
    "at least 1": ([source("a", 1, 2)], Recipe("svd", rank=0)),
    "above 0": ([source("a", 1, 2)], Recipe("svd", energy=1.5)),
    "give one of them": ([source("a", 1, 2)], Recipe("svd", rank=2, energy=0.5)),
    "svd needs": ([source("a", 1, 2)], Recipe("svd")),
    "keeps every value": ([source("a", 1, 2)], Recipe("concatenate", density=0.5)),
    "density 0": ([source("a", 1, 2)], Recipe("ties", density=0.0)),
    "exactly two": ([source("a", 1, 2)], Recipe("slerp")),
    "not negative": ([source("a", 1, 2), source("b", 1, 2, -1.0)], Recipe("slerp")),
    "no adapter": ([], Recipe()),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_has_no_meaning_is_refused(words):
    sources, recipe = REFUSED[words]
    with pytest.raises(UserError, match=words):
        blend(sources, recipe)


def test_other_shapes_are_refused():
    others = [Source("a", {PLAIN: low_rank(1, 2)}), Source("b", {PLAIN: low_rank(1, 2, rows=7)})]
    with pytest.raises(UserError, match="same base"):
        blend(others, Recipe())


@pytest.mark.parametrize("method", METHODS)
def test_the_same_blend_twice_is_the_same(method):
    def once():
        sources = [source("a", 1, 2, 0.7), source("b", 2, 4, 0.3, rslora=True)]
        return blend(sources, Recipe(method, rank=4, density=0.5 if method in DENSITY else None))

    one, other = once().updates, once().updates
    assert all(torch.equal(one[m].a, other[m].a) and torch.equal(one[m].b, other[m].b) for m in (PLAIN, TABLE))
