"""A codec's decoder while it is tuned: one optimizer step, the mean of its weights over the run, what stays as it was.

What is measured and kept is the running mean of the weights over the steps (Polyak and Juditsky 1992; Izmailov et al.
2018, arXiv:1803.05407): it is steadier than any single step. Crops of other music may have as their target what the old
decoder made of their codes (distillation, Li and Hoiem 2016, arXiv:1606.09282): the decoder then keeps what it did.
"""

import copy
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from data_prep.codec.transformers_codec import TransformersCodec
from data_prep.codec.tuned_decoder import decoder_in_place, decoder_of
from finetune.codec_tune.discriminators import Discriminators, discriminator_loss, generator_losses
from finetune.codec_tune.losses import ATTACK_WEIGHT, WAVE_WEIGHT, MelLoss
from finetune.codec_tune.low_rank import LowRankDecoder
from finetune.codec_tune.recordings import Crops
from finetune.codec_tune.settings import TuneSettings

ADVERSARIAL_WEIGHT, MATCHING_WEIGHT = 0.1, 1.0
CONTEXT_SEC = 0.16
WARM_UP_STEPS = 20


class DecoderLearner:
    """Everything that a tuning run changes. `modules` and `optimizers` are what a saved state holds."""

    def __init__(self, codec: TransformersCodec, settings: TuneSettings) -> None:
        torch.manual_seed(settings.seed)
        self.codec, self.settings = codec, settings
        self.decoder = decoder_of(codec)
        self.before = copy.deepcopy(self.decoder).requires_grad_(False).eval()
        self.average = copy.deepcopy(self.before)
        self.decoder.requires_grad_(True).train()  # cuDNN's LSTM goes backwards in train mode only
        self.mel = MelLoss(codec.sample_rate_hz).to(codec.device)
        self.judges = Discriminators().to(codec.device) if settings.discriminators else None
        self.low_rank = LowRankDecoder(self.decoder, settings.rank, settings.seed) if settings.rank else None
        self.learns: nn.Module = self.low_rank or self.decoder
        self.mean: nn.Module = copy.deepcopy(self.low_rank) or self.average
        self.modules: dict[str, Any] = {"decoder": self.learns, "average": self.mean}
        self.modules |= {"judges": self.judges} if self.judges is not None else {}
        self.optimizers = {
            name: torch.optim.AdamW(module.parameters(), lr=settings.lr, betas=(0.8, 0.99), weight_decay=0.0)
            for name, module in self.modules.items()
            if name != "average"
        }

    def sync(self) -> None:
        """After a saved state was put back: the decoders have what the factors mean."""
        if isinstance(self.mean, LowRankDecoder) and self.low_rank is not None:
            self.low_rank.put_into(self.decoder)
            self.mean.put_into(self.average)

    def tensors(self) -> dict[str, Tensor]:
        """The mean decoder as a file holds it: whole, or as low-rank changes."""
        return self.mean.tensors() if isinstance(self.mean, LowRankDecoder) else dict(self.average.state_dict())

    def step(self, crops: Crops, step: int) -> dict[str, float]:
        """Learn from the crops of a step; returns the losses.

        Raises:
            FloatingPointError: the loss is not finite; nothing was learnt from these crops.
        """
        codec, settings = self.codec, self.settings
        n_frames, context = codec.spec.frames_in(settings.crop_sec), codec.spec.frames_in(CONTEXT_SEC)
        crop = crops.batch(step, settings.batch_size, n_frames, context)
        codes, is_other = crop.codes.to(codec.device), crop.is_other.to(codec.device)
        inside = slice(context * codec.hop_samples, (context + n_frames) * codec.hop_samples)
        wanted = crop.audio.to(codec.device)
        if settings.keep_old and is_other.any():
            with torch.no_grad(), decoder_in_place(codec, self.before):
                wanted[is_other] = decoded(codec, codes[is_other])[..., inside].reshape(wanted[is_other].shape)
        wanted = wanted.flatten(0, 1)[:, None]  # [B * C, 1, N]
        made = decoded(codec, codes)[..., inside]
        losses = {"wave": (made - wanted).abs().mean()}
        losses["mel"], losses["attacks"] = self.mel.with_attacks(made, wanted)
        loss = losses["mel"] + ATTACK_WEIGHT * losses["attacks"] + WAVE_WEIGHT * losses["wave"]
        if self.judges is not None:
            loss = loss + self._adversarial(self.judges, wanted, made, losses, step)
        if not loss.isfinite():
            raise FloatingPointError(f"the loss at step {step + 1} is not finite; the best decoder so far is kept")
        self._learn(loss, step)
        return {name: float(value.detach()) for name, value in losses.items()}

    def _adversarial(
        self, judges: Discriminators, wanted: Tensor, made: Tensor, losses: dict[str, Tensor], step: int
    ) -> Tensor:
        """Teach the discriminators on these crops, then say how well the decoder fools them."""
        losses["judges"] = discriminator_loss(judges(wanted), judges(made.detach()))
        optimizer = self._ready("judges", step)
        losses["judges"].backward()
        _clip_and_step(optimizer)
        with torch.no_grad():
            real = judges(wanted)
        losses["fooling"], losses["matching"] = generator_losses(real, judges(made))
        return ADVERSARIAL_WEIGHT * losses["fooling"] + MATCHING_WEIGHT * losses["matching"]

    def _learn(self, loss: Tensor, step: int) -> None:
        optimizer = self._ready("decoder", step)
        self.decoder.zero_grad(set_to_none=True)
        loss.backward()
        if self.low_rank is not None:
            self.low_rank.take_gradients(self.decoder)
        _clip_and_step(optimizer)
        self._follow(min(self.settings.average, (1 + step) / (10 + step)))
        self.sync()

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        """Move the mean a little towards what learns; in the first steps, faster."""
        for kept, now in zip(self.mean.state_dict().values(), self.learns.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(now, 1 - decay)
            else:
                kept.copy_(now)

    def _ready(self, name: str, step: int) -> torch.optim.Optimizer:
        """An optimizer at a step's learning rate, its gradients empty."""
        optimizer, left = self.optimizers[name], 1 - step / self.settings.steps
        factor = min(1.0, (step + 1) / WARM_UP_STEPS) * (0.05 + 0.95 * (0.5 - 0.5 * float(np.cos(np.pi * left))))
        for group in optimizer.param_groups:
            group["lr"] = self.settings.lr * factor
        optimizer.zero_grad(set_to_none=True)
        return optimizer


def decoded(codec: TransformersCodec, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "M 1 N"]:
    """Audio of each channel of each crop, with gradients."""
    per_stream = codes.unflatten(1, (-1, codec.streams)).transpose(1, 2).flatten(0, 1)  # [B * streams, k, T]
    return codec.decode_batch(per_stream).flatten(0, 1)[:, None]


def _clip_and_step(optimizer: torch.optim.Optimizer) -> None:
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
