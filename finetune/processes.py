"""Accelerate, as a run needs it: device, loss scaling for fp16, autocast only where the base is held in fp32."""

from datetime import timedelta
from typing import TYPE_CHECKING

from finetune.precision import Precision

if TYPE_CHECKING:
    from accelerate import Accelerator


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
