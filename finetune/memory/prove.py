"""`train --memory`: fit the settings before the base is loaded, then prove them by a measured step; adjust once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.lm import enable_checkpointing
from configs.train import TrainSettings
from finetune.memory.auto import Fitted, cap_of, fit_settings, limit_process, longest_frames
from finetune.memory.dry import Measured, measure
from finetune.memory.fit import Cap, choose, options
from finetune.memory.optimizer_state import state_bytes
from finetune.memory.predict import GIB, predict
from finetune.memory.setup import Setup, Shape
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
    """What a run was fitted to: the cap, and the setup whose prediction is to be proved."""

    cap: Cap
    setup: Setup


def bound(settings: TrainSettings, precision: Precision) -> Cap | None:
    """The cap of this run, from here on enforced on a GPU; None where `memory` is not set."""
    if settings.memory is None:
        return None
    cap = cap_of(settings.memory, precision.device)
    limit_process(cap)
    return cap


def fitted_to(
    settings: TrainSettings, files: "BaseFiles", clips: Sequence["Clip"], precision: Precision, cap: Cap
) -> Fitted:
    """Settings that fit under the cap by prediction.

    Raises:
        UserError: nothing fits.
    """
    frames = longest_frames([clip.n_frames for clip in clips], settings)
    return fit_settings(settings, shape_of(files), frames, precision.arithmetic, cap)


def bounds_of(
    settings: TrainSettings, files: "BaseFiles", clips: Sequence["Clip"], precision: Precision, cap: Cap
) -> Bounds:
    """The setup of settings that are fitted already."""
    frames = longest_frames([clip.n_frames for clip in clips], settings)
    setup = Setup.of(settings, shape_of(files), precision.base_weights, precision.arithmetic, frames)
    return Bounds(cap, setup)


def shape_of(files: "BaseFiles") -> Shape:
    """The decoder of these files."""
    return Shape.of(files.config.to_dict())


def prove(learner: Learner, clips: Sequence["Clip"], bounds: Bounds, say: Callable[[str], None]) -> Setup:
    """Measure a step on the longest clips; where the prediction was off, fit again to what was measured, once."""
    measured = dry_step(learner, clips, bounds.setup)
    say(words_of(measured, bounds))
    off = WHEN_IT_FAILED if measured is None else measured.peak / _predicted(bounds.setup, bounds.cap)
    over = measured is None or measured.peak > bounds.cap.tensors
    if not over and off > 1 - TOLERANCE:
        return bounds.setup
    if learner.accelerator.num_processes > 1:
        say("several processes: the settings stay as they are")
        return bounds.setup
    again = refitted(bounds, learner.settings.batch_size * learner.settings.accumulation, off)
    if again == bounds.setup:
        return again
    learner.batch_size, learner.checkpointed = again.batch_size, again.checkpointed
    enable_checkpointing(learner.lm, again.checkpointed)
    say(
        f"adjusted: micro-batches of {again.batch_size}, {again.checkpointed} of {again.shape.layers} layers recomputed"
    )
    return again


def refitted(bounds: Bounds, total_batch: int, off: float) -> Setup:
    """The fastest setup when everything needs `off` times what is predicted; the base and the optimizer stay.

    Raises:
        UserError: nothing fits then.
    """
    cap = Cap(round(bounds.cap.tensors / off) + bounds.cap.total - bounds.cap.tensors, bounds.cap.on_gpu)
    found = options(bounds.setup, total_batch, cap, [bounds.setup.weights])
    same = [option for option in found if option.setup.optimizer == bounds.setup.optimizer]
    return choose(same, cap).setup


def dry_step(learner: Learner, clips: Sequence["Clip"], setup: Setup) -> Measured | None:
    """Gradients of one micro-batch of the longest clips with their longest captions, thrown away."""
    part = longest_draws(learner, clips, setup.batch_size)
    cells = sum(draw.n_frames for draw in part)
    return measure(lambda: learn_from(learner, part, cells), learner.lm, learner.weights, state_bytes(setup))


def longest_draws(learner: Learner, clips: Sequence["Clip"], count: int) -> list["Draw"]:
    """As many draws as asked for, the longest there are; clips come up again where there are too few."""
    from finetune.batches import Draw

    ordered = sorted(clips, key=lambda clip: -clip.n_frames)
    chosen = [ordered[number % len(ordered)] for number in range(count)]
    prior = learner.settings.prior_share > 0  # such a micro-batch holds the base's logits besides
    return [
        Draw(clip.id, max(clip.captions, key=len), 0, min(clip.n_frames, learner.max_frames), prior) for clip in chosen
    ]


def words_of(measured: Measured | None, bounds: Bounds) -> str:
    """Predicted and measured, for people."""
    predicted = _predicted(bounds.setup, bounds.cap) / GIB
    limit = bounds.cap.tensors / GIB
    found = "it ran out of memory" if measured is None else f"{measured.peak / GIB:.2f} GiB measured"
    before = f"; {measured.before / GIB:.2f} GiB for all that came before" if measured and measured.before else ""
    text = f"memory of a step on the longest clips: {predicted:.2f} GiB predicted, {found}, {limit:.2f} GiB allowed"
    return text + before


def _predicted(setup: Setup, cap: Cap) -> int:
    memory = predict(setup)
    return memory.reserved if cap.on_gpu else memory.peak
