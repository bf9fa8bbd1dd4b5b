"""What happens around the steps of a run: looking at it, writing it down, saving it. The loop itself is in `train`."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adapters.family.lm import LM
from configs.errors import UserError
from configs.train import TrainSettings
from data_prep.prepared import PreparedDataset
from finetune.background_save import BackgroundSave
from finetune.batches import Draw
from finetune.checkpoint import Position, State, keep_weights
from finetune.evaluate import evaluate, mean
from finetune.preview import Previews
from finetune.run_folder import RunFolder
from finetune.run_log import RunLog, open_log
from finetune.run_progress import RunProgress, memory_bytes
from finetune.step import Gradients

if TYPE_CHECKING:
    from accelerate import Accelerator

    from data_prep.base_files import BaseFiles

MOST_SKIPPED = 20
"""fp16 steps skipped in a row before it counts as broken: the loss scale has been halved that often by then."""


@dataclass
class Run:
    """A run while it goes. Only the first process has a log and previews; all of them save the same position."""

    folder: RunFolder
    settings: TrainSettings
    accelerator: "Accelerator"
    dataset: PreparedDataset
    validation: Sequence[Draw]
    frame_rate: float
    progress: RunProgress
    log: RunLog | None = None
    previews: Previews | None = None
    skipped_in_a_row: int = 0
    saver: BackgroundSave = field(init=False)

    def __post_init__(self) -> None:
        self.saver = BackgroundSave(self.folder.checkpoints, self.settings.checkpoint.keep)

    def introduce(self, facts: dict[str, str]) -> None:
        """Say what was found and what will happen."""
        width = max(map(len, facts))
        for name, words in facts.items():
            self.progress.say(f"{name:<{width}}  {words}")
        if not self.validation:
            self.progress.say(
                "The dataset holds no validation clips (one track only?): there will be no held-out loss, "
                "and the last checkpoint becomes the adapter."
            )

    def look_at_base(self, lm: LM, position: Position) -> None:
        """What the base does without an adapter; nothing may be attached to it yet."""
        if self.validation:
            position.base_loss = self.held_out_loss(lm)
            self.write("base", 0, {"loss": mean(position.base_loss), "codebooks": position.base_loss})
            self.progress.say(f"held-out loss of the base: {mean(position.base_loss):.4f}")
        if self.previews is not None:
            self.write("preview", 0, {"files": self.previews.make(lm, 0)})

    def held_out_loss(self, lm: LM) -> list[float]:
        """Of each codebook on the validation clips, in nats."""
        return evaluate(lm, self.validation, self.dataset, self.accelerator, self.settings.batch_size)

    def refuse_broken(self, gradients: Gradients, draws: Sequence[Draw], state: State) -> None:
        """Stop before a step that would ruin the weights.

        Raises:
            UserError: loss or gradient are no numbers; the state before this step is saved.
        """
        scaled = state.scaler is not None  # the scaler skips steps whose gradient overflowed, and lowers its scale
        if gradients.loss_is_finite and (gradients.norm_is_finite or (scaled and self.skipped_in_a_row < MOST_SKIPPED)):
            return
        self.save(state)
        what = "gradient" if gradients.loss_is_finite else "loss"
        clips = gradients.broken_clips or [draw.clip_id for draw in draws]
        step = state.position.step
        advice = "a lower --optim.lr" if state.scaler is None else "--precision bf16 or fp32, or a lower --optim.lr"
        raise UserError(
            f"The {what} stopped being a number in step {step + 1}; the state before it is saved.",
            where=f"clips {', '.join(sorted(set(clips)))}; {self.folder.checkpoints / f'checkpoint-{step}'}",
            fix=f"Listen to these clips; if they are music, start a new run with {advice}.",
        )

    def count(self, position: Position, gradients: Gradients, draws: Sequence[Draw], lr: float, started: float) -> None:
        """Note that a step is done, and what it was like."""
        sec = time.perf_counter() - started
        audio_sec = sum(draw.n_frames for draw in draws) / self.frame_rate
        position.step += 1
        position.audio_sec += audio_sec
        position.trained_sec += sec
        self.skipped_in_a_row = 0 if gradients.norm_is_finite else self.skipped_in_a_row + 1
        line = {"loss": gradients.loss, "codebooks": gradients.codebooks, "lr": lr, "grad_norm": gradients.norm}
        line |= {"clips": len(draws), "audio_sec": audio_sec, "sec": sec, "memory_bytes": memory_bytes()}
        line |= {} if gradients.prior is None else {"prior": gradients.prior}
        line |= {"idle_share": gradients.idle_sec / max(sec, 1e-9), "padding": gradients.padding}
        self.write("step", position.step, line)
        self.progress.step(position.step, gradients.loss, audio_sec)

    def look_and_save(self, lm: LM, state: State, *, last: bool) -> None:
        """After a step: held-out loss, preview and checkpoint when they are due. The best is saved at once."""
        step, settings = state.position.step, self.settings
        better = False
        if self.validation and (last or due(settings.eval.every_steps, step)):
            with state.ema.applied():
                better = self.judge(state.position, self.held_out_loss(lm))
        if self.previews is not None and due(settings.preview.every_steps, step) and not last:
            with state.ema.applied():
                self.write("preview", step, {"files": self.previews.make(lm, step)})
        if better or last or due(settings.checkpoint.every_steps, step):
            self.save(state, wait=False)
        if not last and passes(settings.checkpoint.places, step, self.progress.total):
            self.keep_weights(state)

    def judge(self, position: Position, losses: list[float]) -> bool:
        """Compare held-out losses with the best so far; whether they are better."""
        position.last_loss = losses
        better = math.isfinite(mean(losses)) and (not position.best_loss or mean(losses) < mean(position.best_loss))
        if better:
            position.best_loss, position.best_step, position.without_better = losses, position.step, 0
        else:
            position.without_better += 1
        line = {"loss": mean(losses), "base_loss": mean(position.base_loss), "codebooks": losses}
        self.write("eval", position.step, line)
        words = f"step {position.step}: held-out loss {mean(losses):.4f}, base {mean(position.base_loss):.4f}"
        self.progress.say(f"{words}{', the best so far' if better else ''}")
        return better

    def has_lost_patience(self, position: Position) -> bool:
        """Whether too many evaluations have gone by without a better one."""
        return 0 < self.settings.eval.patience <= position.without_better

    def save(self, state: State, *, wait: bool = True) -> None:
        """Write a checkpoint of this moment and delete what is no longer kept; return when it is there, or at once."""
        if self.accelerator.is_main_process:
            self.saver.save(state)
            if wait:
                self.saver.wait()

    def keep_weights(self, state: State) -> None:
        """Of this moment, for `woodshed evaluate` to choose from."""
        if self.accelerator.is_main_process:
            self.saver.wait()  # so that a full disk is said when it is known what there is
            keep_weights(self.folder.checkpoints, state)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """A line of the log."""
        if self.log is not None:
            self.log.write(kind, step, values)


def due(every: int, step: int) -> bool:
    """Whether something that happens every so many steps happens now; 0 means never."""
    return every > 0 and step % every == 0


def passes(places: int, step: int, total: int) -> bool:
    """Whether this step reaches one of so many places, spread evenly over a run of `total` steps."""
    return step * places // total > (step - 1) * places // total


def open_run(
    folder: RunFolder,
    settings: TrainSettings,
    accelerator: "Accelerator",
    dataset: PreparedDataset,
    validation: Sequence[Draw],
    files: "BaseFiles",
    progress: RunProgress,
    from_step: int | None,
) -> Run:
    """Open a run's log, behind `from_step` where it goes on, and load what its previews need.

    Only the first process has either.
    """
    first = accelerator.is_main_process
    log = open_log(folder, settings, from_step=from_step) if first else None
    previews = Previews.prepare(files, dataset, settings.preview, folder.samples, progress.say) if first else None
    return Run(folder, settings, accelerator, dataset, validation, files.spec.frame_rate, progress, log, previews)
