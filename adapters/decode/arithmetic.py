"""Which arithmetic pays on which machine, decided by what the machine says it can do.

On a CPU a step at batch 1 or 2 is bound by reading the weights. Measured on one core each (all products of small at two
rows, see docs/benchmarks.md): fp16 weights widened on the fly run near the speed of memory, and so do int8 weights;
oneDNN's fp32 layout gains 1.6 to 2.6 times over plain torch. bf16 is emulated on AVX2 (Zen 3) and slow. Where it is
native (Zen 4) it takes 40 ms against 30 in fp16; at 8 rows 51 against 69, at 16 rows 73 against 126. `auto` takes fp16
there too: it is exacter, and a choice by the number of pieces would make a piece depend on its company.
"""

import platform
from dataclasses import dataclass
from typing import Literal

import torch

from adapters.decode.projections import Kind, has_fbgemm
from configs.errors import UserError
from data_prep.device import cpu_has_bf16

Precision = Literal["auto", "bf16", "fp16", "fp32", "int8"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Arithmetic:
    """How products are made (`kind`), and the dtype of activations and cache."""

    kind: Kind
    dtype: torch.dtype
    label: str


def choose(precision: Precision, device: torch.device) -> Arithmetic:
    """The arithmetic for a precision; `auto` takes half-precision weights wherever they run fast.

    Raises:
        UserError: this machine has no fast way for the precision asked for.
    """
    return _on_gpu(precision, device) if device.type == "cuda" else _on_cpu(precision)


def _on_gpu(precision: Precision, device: torch.device) -> Arithmetic:
    native_bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
    if precision == "bf16" and not native_bf16:
        raise UserError("this GPU has no bf16 arithmetic", fix="use --precision fp16")
    half = "bf16" if native_bf16 else "fp16"
    if precision == "int8":
        return Arithmetic("int8_weights", _DTYPES[half], "int8")
    label = half if precision == "auto" else precision
    return Arithmetic("plain", _DTYPES[label], label)


def _on_cpu(precision: Precision) -> Arithmetic:
    fbgemm = has_fbgemm()
    if precision == "auto":
        precision = "fp16" if fbgemm else "fp32"
    if precision in ("fp16", "int8") and not fbgemm:
        raise UserError(f"this CPU has no fast {precision} arithmetic (it needs AVX2)", fix="use --precision fp32")
    if precision == "bf16" and not (cpu_has_bf16() or _arm_has_bf16()):
        instead = "fp16, which is exacter and as fast, or int8" if fbgemm else "fp32"
        raise UserError("this CPU has no bf16 arithmetic (AVX512-BF16)", fix=f"use --precision {instead}")
    if precision == "fp32" and not torch.backends.mkldnn.is_available():
        return Arithmetic("plain", torch.float32, "fp32")
    return Arithmetic(precision, torch.float32, precision)


def _arm_has_bf16() -> bool:
    """There oneDNN says yes only where the processor has the instructions."""
    return platform.machine() in ("aarch64", "arm64") and torch.ops.mkldnn._is_mkldnn_bf16_supported()
