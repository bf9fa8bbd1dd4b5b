"""Every arithmetic is the plain product within what its precision allows."""

from pathlib import Path

import pytest
import torch

from adapters.decode.arithmetic import choose
from adapters.decode.engine import Packing
from adapters.decode.gate import added, losses
from adapters.decode.projections import (
    ROWS_OF_INT8,
    Biased,
    HalfWeights,
    Kind,
    OneDnn,
    Plain,
    in_int8,
    projection,
)
from adapters.family.load import load_lm
from adapters.family.musicgen.engine import MusicgenEngine
from configs.errors import UserError
from data_prep.base_files import BaseFiles
from data_prep.device import cpu_has_bf16

CPU = torch.device("cpu")
HAS_FBGEMM = "fbgemm" in torch.backends.quantized.supported_engines
HAS_BF16 = cpu_has_bf16()
KINDS = [
    ("plain", 1e-6),
    ("fp32", 1e-5),
    pytest.param("fp16", 1e-3, marks=pytest.mark.skipif(not HAS_FBGEMM, reason="needs AVX2")),
    pytest.param("bf16", 1e-2, marks=pytest.mark.skipif(not HAS_BF16, reason="needs AVX512-BF16")),
    pytest.param("int8", 4e-2, marks=pytest.mark.skipif(not HAS_FBGEMM, reason="needs AVX2")),
    ("int8_weights", 1e-2),
]


@pytest.mark.parametrize("n_rows", [1, 2, 5, 40])
@pytest.mark.parametrize(("kind", "tolerance"), KINDS)
def test_products(kind: Kind, tolerance: float, n_rows: int) -> None:
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(48, 64, generator=draw), torch.randn(n_rows, 64, generator=draw)
    exact = x.double() @ weight.double().T
    got = projection(kind, weight.clone())(x)
    assert got.dtype == x.dtype
    assert float((got - exact).norm() / exact.norm()) < tolerance
    torch.testing.assert_close(Biased(Plain(weight), torch.ones(48))(x), Plain(weight)(x) + 1)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n_rows", [1, 2, ROWS_OF_INT8, ROWS_OF_INT8 + 1])
def test_int8_weights_alone_round_nothing_else(device: str, dtype: torch.dtype, n_rows: int) -> None:
    """Whole numbers times their scale, summed in fp32, by torch's own kernel and by the weight made whole."""
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(48, 68, generator=draw), torch.randn(n_rows, 68, generator=draw).to(dtype)
    whole, scale = in_int8(weight)
    assert whole.abs().max() == 127 and (whole * scale[:, None] - weight).abs().max() <= scale.max() / 2 * 1.001
    exact = x.double() @ (whole.double() * scale.double()[:, None]).T
    got = projection("int8_weights", weight.to(device))(x.to(device))
    assert got.dtype == dtype
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}[dtype]
    assert float((got.cpu() - exact).norm() / exact.norm()) < tolerance


def test_int8_weights_alone_pass_the_gate_of_int8(mono_base: Path) -> None:
    lm = load_lm(BaseFiles("debug", None, mono_base))
    draw = torch.Generator().manual_seed(0)
    clips = [(torch.randint(0, 64, (4, 60), generator=draw), torch.randn(5, 12, generator=draw)) for _ in range(3)]
    exact, other = (
        losses(MusicgenEngine.pack(lm, lm.spec, Packing(kind, CPU, torch.float32)), clips)
        for kind in ("plain", "int8_weights")
    )
    found = added("int8", exact, other)
    assert found.passes and 0 < found.largest < 0.2, found


@pytest.mark.skipif(not HAS_FBGEMM, reason="needs AVX2")
def test_fp32_holds_halves_where_that_rounds_nothing() -> None:
    """Subnormal and largest fp16 numbers too; one number that fp16 does not have, and the matrix stays in fp32."""
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(48, 64, generator=draw).half().float(), torch.randn(2, 64, generator=draw)
    weight[0, :4] = torch.tensor([2.0**-24, -3 * 2.0**-24, 65504.0, 2.0**-14])
    held = projection("fp32", weight)
    assert isinstance(held, HalfWeights) and held.bytes_per_weight == 2
    exact = (x.double() @ weight.double().T).float()
    torch.testing.assert_close(held(x), exact, rtol=1e-6, atol=1e-5)
    alone = projection("fp32", torch.full((1, 8), 2.0**-24))(torch.ones(1, 8))
    torch.testing.assert_close(alone, torch.full((1, 1), 2.0**-21), rtol=0, atol=0)
    for stranger in (1 + 2.0**-20, 65536.0, 2.0**-26):
        weight[7, 7] = stranger
        assert isinstance(projection("fp32", weight), OneDnn)


@pytest.mark.skipif(not HAS_FBGEMM, reason="needs AVX2")
def test_a_row_of_zeros_is_no_trouble_in_int8() -> None:
    weight = torch.randn(8, 16)
    weight[3] = 0
    got = projection("int8", weight)(torch.randn(2, 16))
    assert got.isfinite().all() and (got[:, 3] == 0).all()


def test_packing_leaves_the_quantised_engine_alone() -> None:
    before = torch.backends.quantized.engine
    if HAS_FBGEMM:
        projection("int8", torch.randn(8, 16))
    assert torch.backends.quantized.engine == before


def test_choosing() -> None:
    assert choose("fp32", CPU).label == "fp32"
    assert choose("auto", CPU).label == ("fp16" if HAS_FBGEMM else "fp32")
    if not HAS_BF16:
        with pytest.raises(UserError, match="AVX512"):
            choose("bf16", CPU)
