"""The settings of a run as a plan of one training step, which memory and time are counted from."""

from collections.abc import Iterable

from adapters.family.memory import StepPlan
from adapters.metadata import AddedInfo
from configs.precisions import Arithmetic, BaseWeights
from configs.train import TrainSettings
from data_prep.lm_spec import LMSpec


def step_plan(
    settings: TrainSettings,
    spec: LMSpec,
    weights: BaseWeights,
    arithmetic: Arithmetic,
    longest_frames: int,
    infos: Iterable[AddedInfo] = (),
) -> StepPlan:
    """A run as its settings say it, with "auto" settled; `longest_frames` is the longest clip after cropping. A share
    of prior preservation that is not decided yet (`finetune.prior.with_prior`) counts as none. Of the conditions that
    the adapter adds, `infos`, those that are a prefix count, by its entries.
    """
    return StepPlan(
        spec,
        weights=weights,
        arithmetic=arithmetic,
        checkpointed=checkpointed_layers(settings, spec.layers),
        partly=partly_recomputed(settings, spec.layers),
        batch_size=settings.batch_size,
        frames=longest_frames,
        rank=settings.lora.rank,
        targets=tuple(settings.lora.targets),
        optimizer=settings.optim.name,
        ema=settings.ema_decay > 0,
        prior=(1 if settings.prior_guidance == 1 else 2) if settings.prior_share else 0,
        in_front=sum(info.entries_in_front(longest_frames) for info in infos),
    )


def checkpointed_layers(settings: TrainSettings, layers: int) -> int:
    """How many of a decoder's layers are recomputed under these settings."""
    if not settings.checkpointing:
        return 0
    return min(layers, settings.checkpointed_layers or layers)


def partly_recomputed(settings: TrainSettings, layers: int) -> int:
    """Of how many layers beside those only what is cheap is recomputed."""
    return min(layers - checkpointed_layers(settings, layers), settings.partly_recomputed_layers)
