"""Accelerate, as a run needs it: device, loss scaling for fp16, autocast only where the base is held in fp32."""

from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from finetune.precision import Precision

if TYPE_CHECKING:
    from accelerate import Accelerator

    from adapters.family.lm import LM

Value = TypeVar("Value")

PATIENCE = timedelta(days=1)
"""How long processes wait for the first one, which alone makes previews and prior pieces. torch's is 10 minutes."""


def start_processes(precision: Precision) -> "Accelerator":
    """The handle of this process. How many there are is up to `accelerate launch`; without it there is one."""
    from accelerate import Accelerator
    from accelerate.utils import AutocastKwargs, InitProcessGroupKwargs

    return Accelerator(
        mixed_precision=precision.mixed,
        cpu=precision.device == "cpu",
        kwargs_handlers=[AutocastKwargs(enabled=precision.autocast), InitProcessGroupKwargs(timeout=PATIENCE)],
    )


def of_first_process(value: Value) -> Value:
    """What the first process has found, in all of them: measurements differ between processes, settings must not."""
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


def without_fp32_outputs(lm: "LM") -> None:
    """Take Accelerate's wrapper off a prepared model that needs no autocast.

    With fp16 it turns what the model returns into fp32: a copy of all logits, twice their size, which the loss does
    not need (`finetune.lean_loss`).
    """
    if vars(lm).pop("_original_forward", None) is not None:
        vars(lm).pop("forward", None)
