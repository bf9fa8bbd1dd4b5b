"""`--memory 10gb` or `auto`: settings that fit the card, worked out before anything is loaded.

What a person has set to something other than "auto" stays: only the way the base is held (when `base_weights` is
auto), the layers that are recomputed, how the total batch is cut, and, where nothing else fits, the optimizer are
chosen here.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from adapters.metadata import AddedInfo
from configs.errors import UserError
from configs.precisions import Arithmetic, BaseWeights
from configs.train import TrainSettings
from data_prep.lm_spec import LMSpec
from finetune.memory.cost import Machine
from finetune.memory.fit import Cap, Option, choose, options
from finetune.memory.step_plan import step_plan

SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(g|gb|gib|m|mb|mib)\s*", re.IGNORECASE)
FREE_SHARE = 0.95
"""Of what is free on a GPU with `auto`; the rest is for what a desktop takes meanwhile."""
FREE_SHARE_CPU = 0.7
"""Of the main memory that is free, where there is no GPU."""


@dataclass(frozen=True)
class Fitted:
    """Settings that fit, the option they came from, and every option there was."""

    settings: TrainSettings
    option: Option
    cap: Cap
    table: list[Option]


def parse(text: str) -> int:
    """Bytes of "10gb", "6 GiB" or "8000mb"; a gigabyte is 2^30 bytes here, as on the box of a card.

    Raises:
        UserError: it is no amount of memory.
    """
    match = SIZE.fullmatch(text)
    if match is None:
        raise UserError(
            f"{text!r} is no amount of memory.",
            where="memory",
            fix="Write it like 10gb or 6.5gb; auto takes what is free.",
        )
    return round(float(match[1]) * (2**30 if match[2].lower().startswith("g") else 2**20))


def cap_of(text: str, device: Literal["cpu", "cuda"]) -> Cap:
    """The cap that a `memory` setting names; "auto" asks the device what is free now."""
    if text != "auto":
        return Cap(parse(text), device == "cuda")
    if device == "cpu":
        return Cap(round(_free_main_memory() * FREE_SHARE_CPU), on_gpu=False)
    import torch

    from finetune.memory.predict import CONTEXT_BYTES

    free, _ = torch.cuda.mem_get_info()  # the context of this process is gone from it already
    return Cap(round(free * FREE_SHARE) + CONTEXT_BYTES)


def fit_settings(
    settings: TrainSettings,
    spec: LMSpec,
    longest_frames: int,
    arithmetic: Arithmetic,
    cap: Cap,
    machine: Machine | None = None,
    infos: Iterable[AddedInfo] = (),
) -> Fitted:
    """The fastest settings that fit, at the same total batch, with the conditions `infos` that the adapter adds.

    Raises:
        UserError: nothing fits.
    """
    plan = step_plan(settings, spec, arithmetic, arithmetic, longest_frames, infos)
    total = settings.batch_size * settings.accumulation
    found = options(plan, total, cap, weights_to_try(settings, arithmetic), machine)
    option = choose(found, cap)
    return Fitted(applied(settings, option), option, cap, found)


def weights_to_try(settings: TrainSettings, arithmetic: Arithmetic) -> list[BaseWeights]:
    """Unquantised, or in 4 bits; what the settings name when they name one."""
    if settings.base_weights != "auto":
        return [settings.base_weights]
    return [arithmetic, "nf4"]


def applied(settings: TrainSettings, option: Option) -> TrainSettings:
    """The settings with what the option says."""
    plan = option.plan
    changed = settings.model_copy(deep=True)
    changed.base_weights = plan.weights
    changed.checkpointing = plan.checkpointed > 0
    changed.checkpointed_layers = plan.checkpointed if plan.checkpointed < plan.spec.layers else 0
    changed.partly_recomputed_layers = plan.partly
    changed.batch_size, changed.accumulation = plan.batch_size, option.accumulation
    changed.optim.name = plan.optimizer
    return changed


def longest_frames(frames: list[int], settings: TrainSettings, frame_rate: float) -> int:
    """Of the clips after cropping to `max_clip_sec`."""
    return min(max(frames), round(settings.max_clip_sec * frame_rate))


def limit_process(cap: Cap) -> None:
    """Make PyTorch's allocator refuse more than the cap: an honest out-of-memory instead of a machine that stalls."""
    import torch

    if cap.on_gpu:
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap.tensors / total))


def _free_main_memory() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError) as error:
        raise UserError(
            "How much memory is free cannot be found out on this system.",
            where="memory: auto",
            fix="Give it: --memory 8gb.",
        ) from error
