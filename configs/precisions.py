"""How numbers are held and computed with, by the names that settings, files and code share."""

from typing import Literal

Arithmetic = Literal["fp32", "bf16", "fp16"]
"""Of activations."""
BaseWeights = Literal["fp32", "bf16", "fp16", "int8", "nf4"]
"""How a frozen base is held; int8 and nf4 through bitsandbytes."""
VALUE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
