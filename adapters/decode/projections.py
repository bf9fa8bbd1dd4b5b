"""One matrix times a few rows, in the arithmetic that pays on this machine.

At two rows (one piece with guidance) a step is bound by reading the weights, so a projection is judged by bytes read.
Each kind is a small callable `x [M, D_in] -> [M, D_out]`; `projection` picks the class by name:

    plain   torch's own linear; GPU, and the reference everywhere
    fp32    CPU, oneDNN with weights laid out beforehand; a matrix whose every number is an fp16 number (a base that was
            published in half precision) is held as fp16 instead, which rounds nothing and halves what is read
    fp16    CPU, weights in half precision, arithmetic and activations in fp32 (FBGEMM; needs AVX2)
    bf16    CPU, weights and activations in bf16, oneDNN (needs native bf16: AVX512-BF16)
    int8    CPU, weights in int8 per output channel, activations quantised row batch by row batch (FBGEMM)
    int8_weights  GPU, the same weights, widened as they are read; activations and sums are not rounded to 8 bits

Which of them is fast where was measured: see docs/benchmarks.md, "Sampling". It knows nothing of adapters.
"""

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int8
from torch import Tensor
from torch.nn import functional

Kind = Literal["plain", "fp32", "fp16", "bf16", "int8", "int8_weights"]
Projection = Callable[[Tensor], Tensor]

ROWS_HINT = 2
"""Rows that oneDNN lays weights out for; at 2 rows this is 1.6 times faster than a layout for 1, and as good at 8."""
ROWS_AT_LEAST = 4 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 1
"""With AVX512 oneDNN's product of 4 rows takes two thirds of the time of its product of 1 or 2 (Zen 4, small: fp32 121
→ 74 ms, bf16 57 → 40): fewer rows are filled up with zeros."""


ROWS_OF_INT8 = 4
"""Up to how many rows a GPU multiplies by int8 weights without making them whole. Assumed: not measured on a GPU."""


class Plain:
    """torch's own product, in the dtype of the weight."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.bytes_per_weight = weight.element_size()

    def __call__(self, x: Float[Tensor, "M D_in"]) -> Float[Tensor, "M D_out"]:
        """The product."""
        return functional.linear(x, self.weight)


class OneDnn:
    """oneDNN with the weight reordered once; fp32 or bf16."""

    def __init__(self, weight: Tensor) -> None:
        self.dtype = weight.dtype
        self.bytes_per_weight = weight.element_size()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS_HINT)
        self.room = torch.zeros(ROWS_AT_LEAST, weight.shape[1], dtype=weight.dtype)

    def __call__(self, x: Float[Tensor, "M D_in"]) -> Float[Tensor, "M D_out"]:
        """The product; bf16 weights round the activations too and hand back the dtype they were given."""
        n_rows = x.shape[0]
        if n_rows < ROWS_AT_LEAST:
            self.room.narrow(0, 0, n_rows).copy_(x)  # the other rows hold zeros, or older ones that nobody looks at
        rows = self.room if n_rows < ROWS_AT_LEAST else x.to(self.dtype)
        y = torch.ops.mkldnn._linear_pointwise.default(rows, self.packed, None, "none", [], "")
        return y.narrow(0, 0, n_rows).to(x.dtype)


class HalfWeights:
    """FBGEMM with fp16 weights that are widened as they are read: half the bytes, fp32 sums."""

    bytes_per_weight = 2

    def __init__(self, weight: Tensor) -> None:
        with _fbgemm():
            self.packed = torch.ops.quantized.linear_prepack_fp16(weight.float().contiguous(), None)

    def __call__(self, x: Float[Tensor, "M D_in"]) -> Float[Tensor, "M D_out"]:
        """The product."""
        return torch.ops.quantized.linear_dynamic_fp16.default(x, self.packed)


class Int8Weights:
    """FBGEMM with int8 weights and activations quantised on the fly.

    Without VNNI two products are summed in 16 bits, so activations keep 7 bits (`reduce_range`); with it they keep 8.
    """

    bytes_per_weight = 1
    reduce_range = not torch.cpu._is_vnni_supported()

    def __init__(self, weight: Tensor) -> None:
        whole, scale = in_int8(weight)
        zero = torch.zeros(len(scale), dtype=torch.int64)
        with _fbgemm(), warnings.catch_warnings():
            # torch 2.14 announces that quantised tensors will go; this project's pins keep the versions that have them.
            warnings.filterwarnings("ignore", message=".*quantized tensor creation functions.*", category=UserWarning)
            quantised = torch._make_per_channel_quantized_tensor(  # pyright: ignore[reportPrivateImportUsage]
                whole, scale.double(), zero, 0
            )
            self.packed = torch.ops.quantized.linear_prepack(quantised, None)

    def __call__(self, x: Float[Tensor, "M D_in"]) -> Float[Tensor, "M D_out"]:
        """The product."""
        return torch.ops.quantized.linear_dynamic.default(x, self.packed, self.reduce_range)


class Int8WeightsAlone:
    """torch's own product with int8 weights (`_weight_int8pack_mm`): half the bytes of bf16, arithmetic in fp32.

    Its CUDA kernel reads every weight once for each row, so it serves the few rows of a step; more rows (a prefill) are
    multiplied by the weight made whole in the type of the activations. Neither asks the host anything: graphs hold it.
    """

    bytes_per_weight = 1

    def __init__(self, weight: Tensor) -> None:
        self.whole, self.scale = in_int8(weight)

    def __call__(self, x: Float[Tensor, "M D_in"]) -> Float[Tensor, "M D_out"]:
        """The product, in the type of `x`."""
        if len(x) <= ROWS_OF_INT8:
            return torch.ops.aten._weight_int8pack_mm(x.float(), self.whole, self.scale).to(x.dtype)
        return functional.linear(x, (self.whole.float() * self.scale[:, None]).to(x.dtype))


class Biased:
    """A projection with a bias behind it."""

    def __init__(self, inner: Projection, bias: Tensor) -> None:
        self.inner = inner
        self.bias = bias

    def __call__(self, x: Float[Tensor, "M D_in"]) -> Float[Tensor, "M D_out"]:
        """The product plus the bias."""
        return self.inner(x) + self.bias


def in_int8(weight: Float[Tensor, "D_out D_in"]) -> tuple[Int8[Tensor, "D_out D_in"], Float[Tensor, " D_out"]]:
    """Whole numbers from -127 to 127, and what one step of each output channel is worth."""
    weight = weight.float()
    scale = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
    return (weight / scale[:, None]).round_().clamp_(-127, 127).to(torch.int8), scale


def projection(
    kind: Kind, weight: Float[Tensor, "D_out D_in"]
) -> Plain | OneDnn | HalfWeights | Int8Weights | Int8WeightsAlone:
    """The weight made ready for this kind of arithmetic; the fp32 weight may be freed afterwards."""
    if kind == "int8_weights":
        return Int8WeightsAlone(weight)
    if kind == "plain":
        return Plain(weight)
    if kind == "fp32":
        return HalfWeights(weight) if has_fbgemm() and is_half(weight) else OneDnn(weight.float())
    if kind == "bf16":
        return OneDnn(weight.bfloat16())
    return HalfWeights(weight) if kind == "fp16" else Int8Weights(weight)


def has_fbgemm() -> bool:
    """Whether products with fp16 and int8 weights are fast here."""
    engines, capability = torch.backends.quantized.supported_engines, torch.backends.cpu.get_cpu_capability()
    return "fbgemm" in engines and capability in ("AVX2", "AVX512")


def is_half(weight: Tensor) -> bool:
    """Whether fp16 holds every one of these numbers as it is."""
    return weight.dtype == torch.float16 or torch.equal(weight.half().to(weight.dtype), weight)


class _fbgemm:  # noqa: N801
    """Packs for FBGEMM and puts the process's engine back: other code may have chosen another one."""

    def __enter__(self) -> None:
        self.before = torch.backends.quantized.engine
        torch.backends.quantized.engine = "fbgemm"

    def __exit__(self, *_: object) -> None:
        torch.backends.quantized.engine = self.before
