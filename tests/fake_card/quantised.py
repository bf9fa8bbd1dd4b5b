"""bitsandbytes on the card: its parameters, which torch cannot turn into fakes, and what its CUDA kernels do besides.

Known of version 0.50, from its own Python: a product in 8 bits with a threshold asks the host whether there are
outliers, and holds its sums in int32 and its result in fp16 before that is turned into the type asked for; a product
in 4 bits of many rows makes the whole weight. Neither of that can be seen in the shapes that its operations announce.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from fake_card.card import FakeCard

ROWS_OF_FUSED_4BIT = 8
"""Up to here bitsandbytes multiplies by packed weights on every card but a few (`_gemm_4bit_use_custom_cuda`)."""


def install(put: Callable[[Any, str, Any], None]) -> None:
    """Let its parameters be quantised on the card. Loaded before the card is there, else it looks for kernels of it."""
    import bitsandbytes

    bnb: Any = bitsandbytes
    put(bnb.nn.Params4bit, "_quantize", _in_4_bits(bnb.nn.Params4bit._quantize))
    put(bnb.nn.Int8Params, "_quantize", _in_8_bits(bnb.nn.Int8Params._quantize))
    put(bnb.functional, "name2qmap", {})  # tables by name, on whatever device they were wanted first


def is_quantised(value: Any) -> bool:
    """Whether this is a parameter of bitsandbytes, real or fake: `.to` of its module leaves it alone."""
    return type(value).__name__ in ("Params4bit", "Int8Params") or hasattr(value, "of_bitsandbytes")


def in_parts(card: "FakeCard", func: Any) -> Callable[..., Any] | None:
    """What this operation of bitsandbytes does on a card, in operations that the card knows; None: as announced."""
    name = func.name().removeprefix("bitsandbytes::")
    if name == "int8_vectorwise_quant":
        return lambda a, threshold=0.0: _quantise_rows(card, a, threshold)
    return {"gemm_4bit": _gemm_4bit, "int8_mixed_scaled_mm": _mixed_int8, "int8_scaled_mm": _scaled_int8}.get(name)


def _in_4_bits(plain: Callable[..., Any]) -> Callable[..., Any]:
    def quantise(self: Any, device: Any) -> Any:
        import bitsandbytes.functional as bnb

        if torch.device(device).type != "cuda":
            return plain(self, device)
        names = ("blocksize", "compress_statistics", "quant_type", "quant_storage")
        how = {name: getattr(self, name) for name in names}
        packed, state = bnb.quantize_4bit(self.data.contiguous().to(device), **how)
        held = _parameter(packed, **how, quant_state=state, bnb_quantized=True, module=self.module)
        self.module.quant_state = state
        return held

    return quantise


def _in_8_bits(plain: Callable[..., Any]) -> Callable[..., Any]:
    def quantise(self: Any, device: Any) -> Any:
        import bitsandbytes.functional as bnb

        if torch.device(device).type != "cuda":
            return plain(self, device)
        packed, scales, _ = bnb.int8_vectorwise_quant(self.data.to(device, torch.float16))
        return _parameter(packed, CB=packed, SCB=scales, has_fp16_weights=False)

    return quantise


def _parameter(packed: Tensor, **attributes: Any) -> nn.Parameter:
    held = nn.Parameter(packed, requires_grad=False)
    vars(held).update(attributes, of_bitsandbytes=True)
    return held


def _quantise_rows(card: "FakeCard", a: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor | None]:
    outliers = None
    if threshold > 0:
        beyond = a.abs() >= threshold
        card.wait("question about outliers")
        outliers = torch.empty(0, device=beyond.device, dtype=torch.int64)
    scales = torch.empty(a.numel() // a.shape[-1], device=a.device)
    return torch.empty_like(a, dtype=torch.int8), scales, outliers


def _gemm_4bit(a: Tensor, packed: Tensor, shape: list[int], absmax: Tensor, *more: Any, **named: Any) -> Tensor:
    weight = packed if a.numel() // a.shape[-1] <= ROWS_OF_FUSED_4BIT else a.new_empty(list(shape))
    if weight is packed:
        return a.new_empty(*a.shape[:-1], shape[0])
    return functional.linear(a, weight)


def _mixed_int8(
    a: Tensor, ca: Tensor, cb: Tensor, sca: Tensor, scb: Tensor, outliers: Tensor | None = None, bias: Any = None
) -> tuple[Tensor, None]:
    return _scaled_int8(ca, cb, sca, scb, dtype=a.dtype), None


def _scaled_int8(
    a: Tensor, b: Tensor, rows: Tensor, columns: Tensor, bias: Any = None, dtype: torch.dtype | None = None
) -> Tensor:
    sums = torch.empty(*a.shape[:-1], b.shape[0], device=a.device, dtype=torch.int32)
    return torch.empty_like(sums, dtype=torch.float16).to(dtype or torch.float16)
