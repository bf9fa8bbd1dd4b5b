"""Prior preservation: what the adapter should leave alone, shown to it while it learns.

Some clips are heard without the trigger (or without any caption), and the target there is not the music but what the
base itself predicts. So the trigger becomes a switch: with it the adapter plays the new style, without it the base.
The idea is DreamBooth's (Ruiz et al. 2022, arXiv:2208.12242, section 3.3), with the base's predictions as soft targets
(Hinton et al. 2015, arXiv:1503.02531). Two thirds of those clips are pieces of other kinds that the base played
(`finetune.prior_pieces`).

Music is sampled with guidance: null + g · (shown − null). That makes whatever the adapter changes in a prompt g times
as large, so a difference that hardly counts in the plain predictions is heard. `prior_guidance` compares base and
adapter as they are sampled, from the base's own null predictions; those of the adapter are held by the clips that have
no caption.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adapters.pattern import IGNORE
from configs.errors import UserError
from configs.train import TrainSettings
from data_prep.captions import says_trigger
from data_prep.move import move_of_info

if TYPE_CHECKING:
    from data_prep.prepared import PreparedDataset
    from finetune.batches import Clip


SHARE = 0.5
"""Of the clips, where nothing else was asked for and there is a trigger."""


def with_prior(settings: TrainSettings, dataset: "PreparedDataset", clips: Sequence["Clip"]) -> TrainSettings:
    """The settings with what was left out decided: whether the base is held on to.

    That needs a trigger, what prep keeps of captions without it, and a base in one place that follows words alone and
    is moved to nothing that it has never known.
    """
    changed: dict[str, Any] = {}
    if settings.prior_share is None:
        bare = {caption for clip in clips for caption in clip.bare}
        info = dataset.info
        plain = not (info.get("conditions") or move_of_info(info) or settings.pattern)
        able = bool(dataset.trigger and bare) and plain and not settings.shard_base
        able = able and all(map(dataset.has_text_state, bare))
        changed["prior_share"] = SHARE if able or settings.prior_prompts else 0.0
    if not dataset.trigger or not dataset.has_text_state(dataset.trigger):
        changed["trigger_alone"] = 0.0
    if settings.shard_base:  # pieces are played by a whole base
        changed["prior_pieces"] = 0
    return settings.model_copy(deep=True, update=changed)


def check_prior(settings: TrainSettings, dataset: "PreparedDataset", clips: Sequence["Clip"]) -> None:
    """Whether every clip can be heard without the trigger, if the settings want that.

    Raises:
        UserError: the dataset has no trigger, or was prepared before captions were kept without it too.
    """
    if not settings.prior_share:
        return
    for prompt in settings.prior_prompts:
        if says_trigger(prompt, dataset.trigger):
            raise UserError(
                "A prior prompt says the trigger: what the adapter should learn and what should stay would be one.",
                where=f"{prompt!r}, trigger {dataset.trigger!r}",
                fix="Leave the trigger out of it.",
            )
    if not dataset.trigger:
        raise UserError(
            "prior_share keeps the base as it is where the trigger is not said, but this dataset has no trigger.",
            where=str(dataset.folder),
            fix="Prepare it again with --trigger, or leave prior_share at 0.",
        )
    for caption in {caption for clip in clips for caption in clip.bare}:
        dataset.text_state(caption)


def divergence_sums(
    logits: Float[Tensor, "B K S card"],
    base: Float[Tensor, "B K S card"],
    labels: Int[Tensor, "B K S"],
    null: Float[Tensor, "B K S card"] | None = None,
    guidance: float = 1.0,
) -> Float[Tensor, " K"]:
    """KL(base ‖ adapted) in nats, summed over the cells of each codebook that hold data; fp32 inside.

    With `null`, what the base predicts without conditions, both are guided away from it first, at the scale
    `guidance`. As in `finetune.lean_loss`, only logits are kept for the backward pass. No gradient goes to `base` and
    `null`.
    """
    if null is None:
        null, guidance = base, 1.0
    return _DivergenceSums.apply(logits, base, labels != IGNORE, null, guidance)  # pyright: ignore[reportReturnType]


class _DivergenceSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, base: Tensor, valid: Tensor, null: Tensor, guidance: float) -> Tensor:
        ctx.save_for_backward(logits, base, valid, null)
        ctx.guidance = guidance
        return torch.stack(
            [
                _divergence(*_guided(ours, theirs, without, guidance), cells).sum()
                for ours, theirs, cells, without in _codebooks(logits, base, valid, null)
            ]
        )  # [K]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None, None]:
        logits, base, valid, null = ctx.saved_tensors
        grad_logits = torch.empty_like(logits)
        for k, (ours, theirs, cells, without) in enumerate(_codebooks(logits, base, valid, null)):
            ours, theirs = _guided(ours, theirs, without, ctx.guidance)
            pull = ours.softmax(-1) - theirs.softmax(-1)  # [B, S, card]
            grad_logits[:, k] = pull.mul_((ctx.guidance * cells * grads[0][k])[..., None])
        return grad_logits, None, None, None, None


def _codebooks(*tensors: Tensor) -> zip:
    return zip(*(tensor.unbind(1) for tensor in tensors), strict=True)


def _guided(ours: Tensor, theirs: Tensor, null: Tensor, guidance: float) -> tuple[Tensor, Tensor]:
    """Both as they are sampled with classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598)."""
    ours, theirs = ours.float(), theirs.float()
    if guidance == 1:
        return ours, theirs
    null = null.float()
    return null + (ours - null) * guidance, null + (theirs - null) * guidance


def _divergence(ours: Tensor, theirs: Tensor, valid: Tensor) -> Float[Tensor, "B S"]:
    p, q = theirs.log_softmax(-1), ours.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1) * valid
