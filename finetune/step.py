"""One optimizer step: its micro-batches, their gradients, and whether the numbers can be trusted."""

import contextlib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from adapters.conditions import Conditions
from adapters.family.lm import LM
from configs.train import TrainSettings
from finetune.alarm import Alarm
from finetune.batches import ClipSource, Draw, chance, collate
from finetune.buckets import micro_batches, padded_frames
from finetune.history import hide_past
from finetune.idle import Idle
from finetune.lean_loss import codebook_sums
from finetune.loss import for_backward
from finetune.memory.step_plan import checkpointed_layers
from finetune.prior import divergence_sums
from finetune.sharded import average_gradients

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass
class Learner:
    """What a step works with: `model` is the LM as Accelerate wrapped it, `lm` the LM itself.

    A micro-batch holds at most `batch_size * max_frames` frames, and `checkpointed` layers are recomputed: what the
    settings say, until memory runs out.
    """

    lm: LM
    model: torch.nn.Module
    weights: Sequence[torch.nn.Parameter]
    dataset: ClipSource
    accelerator: "Accelerator"
    settings: TrainSettings
    max_frames: int = 0
    without_adapter: Callable[[], AbstractContextManager[None]] | None = None
    """Makes the model the untuned base for a while; asked for only with `prior_share`."""
    alarm: Alarm | None = None
    """Tells the other processes when this one ends."""
    sharded: bool = False
    """Whether the base is spread over the processes (`finetune.sharded`): then all of them compute at the same time."""
    batch_size: int = field(init=False)
    checkpointed: int = field(init=False)
    idle: Idle = field(init=False)

    def __post_init__(self) -> None:
        self.max_frames = self.max_frames or round(self.settings.max_clip_sec * self.lm.spec.frame_rate)
        self.batch_size = self.settings.batch_size
        self.checkpointed = checkpointed_layers(self.settings, self.lm.spec.layers)
        self.idle = Idle(self.accelerator.device)


@dataclass
class Gradients:
    """What the micro-batches of a step came to. `codebooks` is the mean cross-entropy of each, in nats, over the clips
    whose music is the target; `prior` how far the others are from the base, None when there are none.

    `padding` is the share of this process's frames that held nothing, `idle_sec` how long the device waited for clips.
    """

    codebooks: list[float]
    norm: float
    stop: bool
    broken_clips: list[str] = field(default_factory=list)
    padding: float = 0.0
    idle_sec: float = 0.0
    prior: float | None = None

    @property
    def loss(self) -> float:
        """Mean over all cells of the step."""
        return sum(self.codebooks) / len(self.codebooks)

    @property
    def loss_is_finite(self) -> bool:
        """Whether the loss is a number."""
        return math.isfinite(self.loss) and math.isfinite(self.prior or 0.0)

    @property
    def norm_is_finite(self) -> bool:
        """Whether the gradient is made of numbers."""
        return math.isfinite(self.norm)


def accumulate(learner: Learner, draws: Sequence[Draw], step: int, stop: Callable[[], bool]) -> Gradients | None:
    """Leave the gradient of a whole step in the weights, clipped; None when told to stop before it was whole.

    A single process asks `stop` after every micro-batch; several have to agree, so they finish the step.
    """
    accelerator = learner.accelerator
    rank, n_processes = accelerator.process_index, accelerator.num_processes
    cells_per_codebook = sum(draw.n_frames for draw in draws)
    parts = micro_batches(draws, learner.batch_size, learner.max_frames, rank, n_processes)
    ask_base = beside_base(learner, parts, draws)
    sums: list[Tensor] = []
    learner.idle.end()
    for number, part in enumerate(parts):
        seed_everything(learner.settings.seed, step, rank, number)
        whole = number == len(parts) - 1
        with contextlib.nullcontext() if whole else accelerator.no_sync(learner.model):
            sums.append(learn_from(learner, part, cells_per_codebook, ask_base=ask_base[number]))
        if n_processes == 1 and stop():
            return None
    if learner.sharded:
        average_gradients(learner.weights, accelerator)
    gradients = _judged(learner, parts, sums, draws, stop())
    gradients.padding = 1 - sum(draw.n_frames for part in parts for draw in part) / padded_frames(parts)
    gradients.idle_sec = learner.idle.take_sec()
    return gradients


def beside_base(learner: Learner, parts: Sequence[Sequence[Draw]], draws: Sequence[Draw]) -> list[bool]:
    """For each micro-batch whether the untuned base is asked as well; a sharded one by all processes or none."""
    n_processes = learner.accelerator.num_processes if learner.sharded else 1
    everyones = [parts]
    if n_processes > 1:
        cut = partial(micro_batches, draws, learner.batch_size, learner.max_frames, n_processes=n_processes)
        everyones = [cut(rank=rank) for rank in range(n_processes)]
    return [any(part[0].prior for part in together) for together in zip(*everyones, strict=True)]


def learn_from(
    learner: Learner, part: Sequence[Draw], cells_per_codebook: int, *, ask_base: bool | None = None
) -> Float[Tensor, " K"]:
    """Add a micro-batch's part of the gradient of a step of so many cells; its summed loss per codebook.

    The untuned base is asked where the part is to hold on to it, or where `ask_base` says so.
    """
    prior = part[0].prior
    lm, accelerator = learner.lm, learner.accelerator
    batch = collate(part, learner.dataset, lm.spec).to(accelerator.device)
    inputs, labels = lm.inputs_and_labels(batch.codes, batch.n_frames)
    inputs = hide_past(inputs, part, lm.spec.special)
    learner.idle.begin()
    base = _ask_base(learner, inputs, batch.conditions) if prior or ask_base else None
    logits = learner.model(inputs, batch.conditions)
    if prior and base is not None:
        sums = divergence_sums(logits, base.shown, labels, base.null, learner.settings.prior_guidance)
    else:
        sums = codebook_sums(logits, labels)
    del base
    accelerator.backward(for_backward(sums, cells_per_codebook * lm.n_codebooks, accelerator.num_processes))
    learner.idle.end()
    return sums.detach()


class _OfBase(NamedTuple):
    """What the untuned base predicts with the conditions, and without, where guidance asks for that."""

    shown: Float[Tensor, "B K S card"]
    null: Float[Tensor, "B K S card"] | None


def _ask_base(learner: Learner, inputs: Tensor, conditions: Conditions) -> _OfBase:
    """Not through `learner.model`: with several processes every call of that is a meeting of all of them."""
    assert learner.without_adapter is not None, "prior preservation needs to know the adapter"
    lm = learner.accelerator.unwrap_model(learner.model)
    with torch.no_grad(), learner.without_adapter():
        shown = lm(inputs, conditions)
        if learner.settings.prior_guidance == 1 or lm.spec.has("strengths"):  # there guidance is a condition itself
            return _OfBase(shown, None)
        everywhere = torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)
        return _OfBase(shown, lm(inputs, conditions.dropped(everywhere)))


def seed_everything(*of: int) -> None:
    """Make every generator (Python, NumPy, torch, CUDA) a function of these numbers, for an adapter's dropout."""
    from accelerate.utils import set_seed

    set_seed(int(chance("generators", *of) * 2**32))


def _judged(
    learner: Learner, parts: Sequence[Sequence[Draw]], sums: list[Tensor], draws: Sequence[Draw], stop: bool
) -> Gradients:
    """Add up over processes, clip, and find the clips of a micro-batch whose loss is no number."""
    accelerator, K = learner.accelerator, learner.lm.n_codebooks
    local = torch.zeros(2 * K + 1, dtype=torch.float64, device=accelerator.device)  # music, prior, stop
    for part, total in zip(parts, sums, strict=True):
        local[K * part[0].prior :][:K] += total
    local[-1] = stop
    shared: list[float] = accelerator.reduce(local, reduction="sum").tolist()  # pyright: ignore[reportAttributeAccessIssue]
    norm = accelerator.clip_grad_norm_(learner.weights, learner.settings.optim.max_grad_norm or math.inf)
    assert norm is not None  # only DeepSpeed keeps it to itself
    music = sum(draw.n_frames for draw in draws if not draw.prior)
    prior = sum(draw.n_frames for draw in draws) - music
    gradients = Gradients([total / max(1, music) for total in shared[:K]], float(norm), shared[-1] > 0)
    gradients.prior = sum(shared[K : 2 * K]) / (K * prior) if prior else None
    if not gradients.loss_is_finite:
        gradients.broken_clips = _broken_clips(parts, sums)
    return gradients


def _broken_clips(parts: Sequence[Sequence[Draw]], sums: list[Tensor]) -> list[str]:
    """Of all processes. Every one comes here when one does: they have the same sum."""
    from accelerate.utils import gather_object

    broken = [(part, total) for part, total in zip(parts, sums, strict=True) if not total.isfinite().all()]
    return gather_object([draw.clip_id for part, _ in broken for draw in part])
