"""Which arithmetic a run uses and how the frozen base is held. LoRA weights are fp32 in every case.

A base held in 16 bits computes in its own type, without autocast, so that no fp32 copies of activations are kept;
autocast serves only a base held in fp32 that is to compute in 16 bits.

A CPU with bf16 units multiplies matrices in bf16 at twice the rate of fp32, with fp32 sums; one without them emulates
bf16 and is many times slower (docs/benchmarks.md), so there "auto" is fp32.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from configs.errors import UserError
from configs.train import TrainSettings
from data_prep.device import cpu_has_bf16, pick_device

Arithmetic = Literal["fp32", "bf16", "fp16"]
Weights = Literal["fp32", "bf16", "fp16", "int8", "nf4"]
DTYPES: dict[Arithmetic, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """Settled choices, without "auto"."""

    device: Literal["cpu", "cuda"]
    arithmetic: Arithmetic
    base_weights: Weights

    @property
    def mixed(self) -> Literal["no", "bf16", "fp16"]:
        """What Accelerate has to add: autocast, or the loss scaling that fp16 needs in any case."""
        if self.arithmetic == "fp16":
            return "fp16"
        return "bf16" if self.autocast else "no"

    @property
    def autocast(self) -> bool:
        """Whether operations must be cast one by one, because the weights are in another type."""
        return self.arithmetic != "fp32" and self.base_weights == "fp32"

    @property
    def dtype(self) -> torch.dtype:
        """Of the arithmetic."""
        return DTYPES[self.arithmetic]


def settle(settings: TrainSettings) -> Precision:
    """Replace every "auto" by what this machine does best.

    Raises:
        UserError: the machine cannot do what was asked for, or precision and base_weights contradict each other.
    """
    device: Literal["cpu", "cuda"] = "cuda" if pick_device(settings.device).type == "cuda" else "cpu"
    weights = settings.base_weights
    wanted = weights if settings.precision == "auto" and weights in ("bf16", "fp16") else settings.precision
    arithmetic = _arithmetic(wanted, device)
    if weights in ("bf16", "fp16") and weights != arithmetic:
        raise UserError(
            f"A base held in {weights} computes in {weights}, not in {arithmetic}.",
            where=f"precision: {settings.precision}, base_weights: {weights}",
            fix=f"Use `--base_weights {arithmetic}`, or leave base_weights at auto.",
        )
    return Precision(device, arithmetic, arithmetic if weights == "auto" else weights)


def _arithmetic(wanted: str, device: str) -> Arithmetic:
    if device == "cpu":
        if wanted == "fp16":
            raise UserError("fp16 needs a CUDA GPU.", where="precision: fp16", fix="On a CPU use fp32 or bf16.")
        return "bf16" if wanted == "bf16" or (wanted == "auto" and cpu_has_bf16()) else "fp32"
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "bf16" and not has_bf16:
        name = torch.cuda.get_device_name()
        raise UserError(f"{name} has no bf16.", where="precision: bf16", fix="Use `--precision fp16` or auto.")
    if wanted == "fp16" or (wanted == "auto" and not has_bf16):
        return "fp16"
    return "fp32" if wanted == "fp32" else "bf16"
