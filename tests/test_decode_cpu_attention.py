"""The compiled loops of a step's attention are scaled_dot_product_attention, and play what transformers plays."""

import pytest
import torch
from decode_fixtures import packed
from test_decode_greedy import Base, ours, reference, texts
from torch.nn.functional import scaled_dot_product_attention
from transformers import MusicgenForConditionalGeneration

from adapters.family.musicgen import cpu_attention, kv_cache
from adapters.family.musicgen.decoder import attend_from_start
from adapters.family.musicgen.format import spec_of_sizes
from adapters.family.musicgen.kv_cache import KeyValueCache

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even the smallest model runs in loops."""
    monkeypatch.setattr(kv_cache, "LOOPS_PAY_FROM", 0)


def filled(dtype: torch.dtype, n_heads: int, head_dim: int, n_rows: int = 3) -> KeyValueCache:
    spec = spec_of_sizes(n_heads * head_dim, 2, n_heads, 64)
    found = KeyValueCache(spec, n_rows, 300, CPU, dtype)
    found.keys.normal_(generator=torch.Generator().manual_seed(0))
    found.values.normal_(generator=torch.Generator().manual_seed(1))
    return found


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 250, 511])
@pytest.mark.parametrize(("n_heads", "head_dim"), [(2, 64), (3, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_step(dtype: torch.dtype, n_heads: int, head_dim: int, at: int) -> None:
    """At every remainder of the places that are summed at once, and in the last place that there is."""
    held = filled(dtype, n_heads, head_dim)
    draw = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(3, n_heads, 1, head_dim, generator=draw) for _ in range(3))
    got = attend_from_start(held, at)(1, q, k, v)
    keys, values = held.keys[1, :, :, : at + 1].float(), held.values[1, :, :, : at + 1].float()
    torch.testing.assert_close(keys[:, :, -1:], k.to(dtype).float())
    torch.testing.assert_close(values[:, :, -1:], v.to(dtype).float())
    torch.testing.assert_close(got, scaled_dot_product_attention(q, keys, values), rtol=1e-5, atol=1e-5)
    assert got.dtype == q.dtype


def test_large_scores_do_not_overflow() -> None:
    held = filled(torch.float32, 2, 64)
    q, k, v = torch.full((3, 2, 1, 64), 50.0), torch.full((3, 2, 1, 64), 50.0), torch.ones(3, 2, 1, 64)
    torch.testing.assert_close(attend_from_start(held, 9)(0, q, k, v), v)


def test_rows_that_leave_take_their_past_along() -> None:
    held = filled(torch.bfloat16, 2, 64)
    q, k, v = (torch.randn(3, 2, 1, 64) for _ in range(3))
    all_rows = attend_from_start(held, 20)(0, q, k, v)
    held.keep(torch.tensor([2, 0]))
    rows = [2, 0]
    torch.testing.assert_close(attend_from_start(held, 20)(0, q[rows], k[rows], v[rows]), all_rows[rows])


def test_activations_in_bf16_stay_so() -> None:
    held = filled(torch.bfloat16, 2, 64)
    q, k, v = (torch.randn(3, 2, 1, 64).bfloat16() for _ in range(3))
    assert attend_from_start(held, 20)(0, q, k, v).dtype == torch.bfloat16


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_greedy_in_fp32(mono_base, guidance: float) -> None:
    model = MusicgenForConditionalGeneration.from_pretrained(mono_base).eval()
    base = Base(model, packed(model, "fp32"))
    assert base.engine.weights.cache_dtype == torch.float32
    given = texts(base, 4)
    torch.testing.assert_close(ours(base, given, 40, guidance), reference(base, given, 40, guidance))


def test_only_rounded_weights_have_a_rounded_cache(mono_base, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MusicgenForConditionalGeneration.from_pretrained(mono_base).eval()
    plain = packed(model).weights
    assert plain.cache_dtype == torch.float32
    plain.exact = False
    assert plain.cache_dtype == torch.bfloat16
    monkeypatch.setattr(kv_cache, "LOOPS_PAY_FROM", 1 << 17)
    assert plain.cache_dtype == torch.float32


def test_it_runs_where_nothing_can_be_kept_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a read-only machine: numba then refuses to compile a function that it should cache."""
    from numba import njit
    from numba.core.caching import CompileResultCacheImpl

    def three(x: float) -> float:
        return 3 * x

    monkeypatch.setattr(CompileResultCacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="cannot cache"):
        njit(cache=True)(three)
    assert cpu_attention._compiled(three)(2.0) == 6.0
