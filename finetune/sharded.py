"""A base that one card does not hold: each process keeps a share of every layer (FSDP), the adapter stays whole.

Frozen weights are the large part and never change, so they are what is spread: a layer is gathered when it computes and
let go behind it (torch's fully sharded data parallel; Zhao et al. 2023, arXiv:2304.11277). The adapter is small and
every process holds all of it, so optimizer, averages, checkpoints and files are those of any other run; only its
gradients have to be averaged, once a step.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from adapters.family.lm import LM
from configs.errors import UserError
from configs.train import TrainSettings
from finetune.precision import Precision

if TYPE_CHECKING:
    from accelerate import Accelerator

LAUNCH = "accelerate launch --multi_gpu --num_processes 2 -m finetune.cli train … --shard_base true"


def check_sharding(settings: TrainSettings, precision: Precision, n_processes: int) -> None:
    """Refuse what a base in several places cannot do.

    Raises:
        UserError: one process only, a quantised base, a start or kind of adapter that needs whole weights, or settings
            that are planned for a whole base.
    """
    if not settings.shard_base:
        return
    lora = settings.lora
    problems = (
        (n_processes < 2, "there is one process only", f"Start several: {LAUNCH}"),
        (
            precision.base_weights in ("int8", "nf4"),
            f"a base in {precision.base_weights} cannot be cut",
            "Use --base_weights bf16.",
        ),
        (lora.dora, "DoRA needs whole weights", "Leave --lora.dora out."),
        (
            lora.init not in ("default", "gaussian"),
            f"lora.init {lora.init} needs whole weights",
            "Use --lora.init default.",
        ),
        (
            settings.memory is not None,
            "--memory and the presets plan for a whole base on one card",
            "Leave them out, and set --batch_size and --checkpointing.",
        ),
        (
            bool(settings.prior_prompts),
            "prior_prompts are played by the whole base",
            "Leave them out: prior_share works with clips of the dataset.",
        ),
    )
    for wrong, why, fix in problems:
        if wrong:
            raise UserError(f"The base cannot be spread over processes: {why}.", where="shard_base: true", fix=fix)


def without_previews(settings: TrainSettings) -> TrainSettings:
    """The same settings without previews, which are played by a whole base."""
    quiet = settings.preview.model_copy(update={"every_steps": 0})
    return settings.model_copy(update={"preview": quiet})


def shard(lm: LM, accelerator: "Accelerator") -> LM:
    """Spread the blocks of a base in main memory over all processes' devices; the rest goes to each as a whole.

    What is attached to it afterwards is not spread. The base must compute through `lm(…)`, in all processes at once.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = accelerator.device
    mesh = init_device_mesh(device.type, (accelerator.num_processes,))
    for block in lm.blocks:
        fully_shard(block, mesh=mesh)
    in_blocks = {parameter for block in lm.blocks for parameter in block.parameters()}
    whole = {parameter for parameter in lm.parameters() if parameter not in in_blocks}
    for parameter in whole:
        parameter.data = parameter.data.to(device)
    for buffer in lm.buffers():
        buffer.data = buffer.data.to(device)
    fully_shard(lm, mesh=mesh, ignored_params=whole)
    return lm


def average_gradients(weights: Sequence[nn.Parameter], accelerator: "Accelerator") -> None:
    """Mean of every process's gradients, in each of them: one message for all. Where there is none it counts as 0."""
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    flat = torch.cat([weight.grad.reshape(-1).float() for weight in weights if weight.grad is not None])
    torch.distributed.all_reduce(flat)
    flat /= accelerator.num_processes
    for weight, part in zip(weights, flat.split([weight.numel() for weight in weights]), strict=True):
        assert weight.grad is not None
        weight.grad.copy_(part.view_as(weight))
