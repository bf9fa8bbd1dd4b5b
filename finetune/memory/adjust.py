"""`train --memory`: fit the settings before the base is loaded, then measure a step and adjust once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.family.memory import StepPlan
from adapters.family.recompute import enable_checkpointing
from adapters.metadata import AddedInfo
from configs.train import TrainSettings
from finetune.memory.auto import Fitted, cap_of, fit_settings, limit_process, longest_frames
from finetune.memory.dry import Measured, measure
from finetune.memory.fit import Cap, choose, options, recomputed_words
from finetune.memory.host_cost import machine_here
from finetune.memory.optimizer_state import state_bytes
from finetune.memory.predict import GIB, predict
from finetune.memory.step_plan import step_plan
from finetune.precision import Precision
from finetune.step import Learner, learn_from

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles
    from finetune.batches import Clip, Draw

TOLERANCE = 0.1
"""A measured step this far off the prediction is worth fitting again."""
WHEN_IT_FAILED = 1.25
"""How far off a prediction is taken to be when the step ran out of memory, so that nothing could be measured."""


@dataclass(frozen=True)
class Bounds:
    """What a run was fitted to: the cap, and the plan whose prediction is to be proved."""

    cap: Cap
    plan: StepPlan


def bound(settings: TrainSettings, precision: Precision) -> Cap | None:
    """The cap of this run, from here on enforced on a GPU; None where `memory` is not set."""
    if settings.memory is None:
        return None
    cap = cap_of(settings.memory, precision.device)
    limit_process(cap)
    return cap


def fitted_to(
    settings: TrainSettings,
    files: "BaseFiles",
    clips: Sequence["Clip"],
    precision: Precision,
    cap: Cap,
    infos: Iterable[AddedInfo] = (),
) -> Fitted:
    """Settings that fit under the cap by prediction.

    Raises:
        UserError: nothing fits.
    """
    frames = longest_frames([clip.n_frames for clip in clips], settings, files.spec.frame_rate)
    machine = machine_here(files.spec, precision.device)
    return fit_settings(settings, files.spec, frames, precision.arithmetic, cap, machine, infos)


def bounds_of(
    settings: TrainSettings,
    files: "BaseFiles",
    clips: Sequence["Clip"],
    precision: Precision,
    cap: Cap,
    infos: Iterable[AddedInfo] = (),
) -> Bounds:
    """The plan of settings that are fitted already."""
    frames = longest_frames([clip.n_frames for clip in clips], settings, files.spec.frame_rate)
    plan = step_plan(settings, files.spec, precision.base_weights, precision.arithmetic, frames, infos)
    return Bounds(cap, plan)


def measure_and_adjust(
    learner: Learner, clips: Sequence["Clip"], bounds: Bounds, say: Callable[[str], None]
) -> StepPlan:
    """Measure a step on the longest clips; where the prediction was off, fit again to what was measured, once."""
    measured = dry_step(learner, clips, bounds.plan)
    say(words_of(measured, bounds))
    off = WHEN_IT_FAILED if measured is None else measured.peak / _predicted(bounds.plan, bounds.cap)
    over = measured is None or measured.peak > bounds.cap.tensors
    if not over and off > 1 - TOLERANCE:
        return bounds.plan
    if learner.accelerator.num_processes > 1:
        say("several processes: the settings stay as they are")
        return bounds.plan
    again = refitted(bounds, learner.settings.batch_size * learner.settings.accumulation, off)
    if again == bounds.plan:
        return again
    learner.batch_size, learner.checkpointed = again.batch_size, again.checkpointed
    enable_checkpointing(learner.lm, again.checkpointed, again.partly)
    say(f"adjusted: micro-batches of {again.batch_size}, {recomputed_words(again)} layers recomputed")
    return again


def refitted(bounds: Bounds, total_batch: int, off: float) -> StepPlan:
    """The fastest plan when everything needs `off` times what is predicted; the base and the optimizer stay.

    Raises:
        UserError: nothing fits then.
    """
    cap = Cap(round(bounds.cap.tensors / off) + bounds.cap.total - bounds.cap.tensors, bounds.cap.on_gpu)
    found = options(bounds.plan, total_batch, cap, [bounds.plan.weights])
    same = [option for option in found if option.plan.optimizer == bounds.plan.optimizer]
    return choose(same, cap).plan


def dry_step(learner: Learner, clips: Sequence["Clip"], plan: StepPlan) -> Measured | None:
    """Gradients of one micro-batch of the longest clips with their longest captions, thrown away."""
    part = longest_draws(learner, clips, plan.batch_size)
    cells = sum(draw.n_frames for draw in part)
    return measure(lambda: learn_from(learner, part, cells), learner.lm, learner.weights, state_bytes(plan))


def longest_draws(learner: Learner, clips: Sequence["Clip"], count: int) -> list["Draw"]:
    """As many draws as asked for, the longest there are; clips come up again where there are too few."""
    from finetune.batches import Draw

    ordered = sorted(clips, key=lambda clip: -clip.n_frames)
    chosen = [ordered[number % len(ordered)] for number in range(count)]
    prior = bool(learner.settings.prior_share)  # such a micro-batch holds the base's logits besides
    return [
        Draw(clip.id, max(clip.captions, key=len, default=None), 0, min(clip.n_frames, learner.max_frames), prior)
        for clip in chosen
    ]


def words_of(measured: Measured | None, bounds: Bounds) -> str:
    """Predicted and measured, for people."""
    predicted = _predicted(bounds.plan, bounds.cap) / GIB
    limit = bounds.cap.tensors / GIB
    found = "it ran out of memory" if measured is None else f"{measured.peak / GIB:.2f} GiB measured"
    before = f"; {measured.before / GIB:.2f} GiB for all that came before" if measured and measured.before else ""
    text = f"memory of a step on the longest clips: {predicted:.2f} GiB predicted, {found}, {limit:.2f} GiB allowed"
    return text + before


def _predicted(plan: StepPlan, cap: Cap) -> int:
    memory = predict(plan)
    return memory.reserved if cap.on_gpu else memory.peak
