"""A short proof that an adapter does something, and that its files hold what was learnt.

How large ΔW is next to the weights it changes, how far the predictions moved from the base's on music it was not
trained on, and that the files, loaded onto a fresh base, give the logits that training ended with.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from adapters import adapter_files
from adapters.added_conditions import attach as added_conditions
from adapters.family.lm import LM
from adapters.family.load import load_lm
from adapters.family.port import family_of
from adapters.lora import attach_updates
from adapters.low_rank import LowRank
from adapters.pattern import IGNORE
from adapters.whole_weights.layers import install
from data_prep.base_files import BaseFiles
from data_prep.families import module_kind
from data_prep.prepared import PreparedDataset
from finetune.batches import Draw
from finetune.evaluate import labels_of, logits_of
from finetune.precision import Precision

if TYPE_CHECKING:
    from accelerate import Accelerator

CLIPS = 4
"""Clips that the predictions are compared on."""
WITNESS_FRAMES = 250
"""Length of the piece that the fresh load is compared on."""
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 5e-2}
"""Largest difference of a logit, as a share of the largest logit. In 16 bits the scale that is folded into B when an
adapter is loaded rounds differently in every layer."""


@dataclass(frozen=True)
class GroupNorm:
    """Frobenius norms over all adapted modules of one kind."""

    kind: str
    n_modules: int
    delta: float
    weight: float


@dataclass(frozen=True)
class Proof:
    """What was measured. `divergence` is the mean KL from the base in nats, per codebook."""

    norms: list[GroupNorm]
    divergence: list[float]
    n_clips: int
    held_out: bool
    """Whether the clips were held out; without a validation split they are training clips."""
    fresh_difference: float
    """Largest difference of a logit after a fresh load, as a share of the largest logit."""
    tolerance: float
    """What rounding explains, in the same unit."""

    @property
    def holds(self) -> bool:
        """Whether the files give the logits that training ended with, up to rounding."""
        return self.fresh_difference <= self.tolerance

    @property
    def does_something(self) -> bool:
        """Whether any weight was changed at all."""
        return any(norm.delta > 0 for norm in self.norms)


def prove(
    folder: Path,
    files: BaseFiles,
    precision: Precision,
    accelerator: "Accelerator",
    dataset: PreparedDataset,
    draws: Sequence[Draw],
    witness: Tensor,
    *,
    held_out: bool,
) -> Proof:
    """Load base and adapter afresh and measure. `witness` is what `witness_of` gave for the model in training.

    A difference beyond `TOLERANCE` is told (`Proof.holds`) and ends nothing: hours of training stand before it.
    """
    adapter = adapter_files.load(folder)
    updates = adapter.updates
    lm = load_lm(files, weights=precision.base_weights, device=accelerator.device, compute_dtype=precision.dtype)
    before = list(_alone(lm, draws, dataset, accelerator))
    attach_updates(lm, updates)
    if adapter.added:
        added_conditions.attach(lm, adapter.added)
    if adapter.whole:
        install(lm, adapter.whole, lm.device, lm.dtype)
    after = _alone(lm, draws, dataset, accelerator)
    sums, counts = torch.zeros(lm.n_codebooks, dtype=torch.float64), torch.zeros(lm.n_codebooks)
    for (base, valid), (adapted, _) in zip(before, after, strict=True):
        sums += divergence_sums(adapted, base, valid)
        counts += valid.sum(dim=(0, 2))
    difference = _largest_difference(witness_of(lm, draws, dataset, accelerator), witness)
    tolerance = TOLERANCE[precision.arithmetic]
    return Proof(norms(updates, files), (sums / counts).tolist(), len(draws), held_out, difference, tolerance)


def witness_of(
    lm: LM, draws: Sequence[Draw], dataset: PreparedDataset, accelerator: "Accelerator"
) -> Float[Tensor, "1 K S card"]:
    """Logits on the beginning of the first draw, in fp32 on the CPU."""
    first = draws[0]
    short = Draw(first.clip_id, first.caption, first.start_frame, min(first.n_frames, WITNESS_FRAMES))
    return next(_alone(lm, [short], dataset, accelerator))[0]


def divergence_sums(
    adapted: Float[Tensor, "B K S card"], base: Float[Tensor, "B K S card"], valid: Bool[Tensor, "B K S"]
) -> Float[Tensor, " K"]:
    """KL(adapted ‖ base) in nats, summed over the valid cells of each codebook, in float64 from fp32 logits."""
    p, q = adapted.float().log_softmax(-1), base.float().log_softmax(-1)
    cells = (p.exp() * (p - q)).sum(-1)  # [B, K, S]
    return (cells.double() * valid).sum(dim=(0, 2))


def norms(updates: Mapping[str, LowRank], files: BaseFiles) -> list[GroupNorm]:
    """Of ΔW and of the weights it changes, by kind of module."""
    weights = family_of(files).stored(files)
    squares: dict[str, list[float]] = {}
    for module, update in updates.items():
        weight = weights[f"{module}.weight"]
        delta = update.norm() if update.magnitude is None else float(update.delta(weight).norm())
        group = squares.setdefault(module_kind(module), [0, 0.0, 0.0])
        group[0] += 1
        group[1] += delta**2
        group[2] += float(weight.float().norm()) ** 2
    return [GroupNorm(kind, int(n), delta**0.5, weight**0.5) for kind, (n, delta, weight) in squares.items()]


def _alone(
    lm: LM, draws: Sequence[Draw], dataset: PreparedDataset, accelerator: "Accelerator"
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and valid cells of each draw, one at a time, on the CPU and by this process alone."""
    for batch, logits in logits_of(lm, draws, dataset, accelerator, 1, shared=False):
        yield logits.float().cpu(), (labels_of(lm, batch) != IGNORE).cpu()


def _largest_difference(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max() / right.abs().max())
