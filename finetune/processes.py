"""Accelerate, as a run needs it: device, loss scaling for fp16, autocast only where the base is held in fp32."""

from typing import TYPE_CHECKING

from finetune.precision import Precision

if TYPE_CHECKING:
    from accelerate import Accelerator


def start_processes(precision: Precision) -> "Accelerator":
    """The handle of this process. How many there are is up to `accelerate launch`; without it there is one."""
    from accelerate import Accelerator
    from accelerate.utils import AutocastKwargs

    return Accelerator(
        mixed_precision=precision.mixed,
        cpu=precision.device == "cpu",
        kwargs_handlers=[AutocastKwargs(enabled=precision.autocast)],
    )
