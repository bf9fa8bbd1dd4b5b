"""The frozen base in 8 or 4 bits: one linear layer at a time, through bitsandbytes.

int8 is LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339): activations beyond the threshold go through in half
precision. nf4 is QLoRA's 4-bit normal float with doubly quantised scales (Dettmers et al. 2023, arXiv:2305.14314).
Both run on CUDA and on a CPU. Knows nothing of which layers are worth it: the family decides.
"""

import functools
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data_prep.known_remarks import drop_known_remarks

QuantKind = Literal["int8", "nf4"]
OUTLIER_THRESHOLD = 6.0
"""Activations above this are kept in half precision: the value the LLM.int8() paper settles on (section 3.2)."""


def quantized_linear(
    weight: Float[Tensor, "out in"], kind: QuantKind, device: torch.device, compute_dtype: torch.dtype
) -> nn.Linear:
    """A frozen linear layer without bias that holds `weight` in 8 or 4 bits on `device`.

    nf4 multiplies in `compute_dtype`; int8 in the dtype that comes in, through int8.
    """
    import bitsandbytes

    drop_known_remarks()
    bnb: Any = bitsandbytes.nn  # its types do not describe themselves
    out_features, in_features = weight.shape
    if kind == "int8":
        layer = _int8_class()(
            in_features,
            out_features,
            bias=False,
            has_fp16_weights=False,
            threshold=OUTLIER_THRESHOLD,
            device="meta",
        )
        held = bnb.Int8Params(weight.cpu(), requires_grad=False, has_fp16_weights=False)
    else:
        layer = bnb.Linear4bit(
            in_features,
            out_features,
            bias=False,
            compute_dtype=compute_dtype,
            quant_type="nf4",
            device="meta",
        )
        # On some CPUs the layer would repack its weight in the first pass without gradients, for good; the backward
        # pass cannot read that packing.
        layer.support_avx512bf16_for_cpu = False
        held = bnb.Params4bit(weight.cpu(), requires_grad=False, quant_type="nf4", module=layer)
    layer.weight = held.to(device)  # quantises
    if kind == "int8":
        layer.init_8bit_state()  # else the scales are found only after the first pass, which DoRA's start comes before
    return layer


@functools.cache
def _int8_class() -> Any:
    """The int8 layer of bitsandbytes, except that its scales survive peft (0.21) reading its weight on a CPU."""
    import bitsandbytes

    base: Any = bitsandbytes.nn

    class Linear8bit(base.Linear8bitLt):
        def init_8bit_state(self) -> None:
            if self.weight.SCB is not None:
                super().init_8bit_state()
            self.weight.CB = None

    return Linear8bit
