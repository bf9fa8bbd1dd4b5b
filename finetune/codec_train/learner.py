"""One optimizer step of a codec, and what it needs: the model, discriminators, their optimizers, the losses.

The random choices of a step (which codes are replaced, how many codebooks are used) are functions of the seed and the
step, so that a run that was stopped goes on exactly.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from finetune.codec_train.model import CodecModel
from finetune.codec_train.settings import CodecSettings
from finetune.codec_tune.discriminators import Discriminators, discriminator_loss, generator_losses
from finetune.codec_tune.losses import ATTACK_WEIGHT, WAVE_WEIGHT, MelLoss

ADVERSARIAL_WEIGHT, MATCHING_WEIGHT = 0.1, 1.0
KMEANS_BATCHES = 24
"""One batch holds too few latents for the codebooks' first guess."""
WARM_UP_STEPS = 50


class Learner:
    """Everything that learns. `modules` and `optimizers` are what a saved state holds.

    With `tokens_fixed`, only the decoder goes on learning.
    """

    def __init__(self, settings: CodecSettings, device: torch.device, *, adversarial_from: int | None = None) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.device = settings, device
        self.adversarial_from = settings.adversarial_from if adversarial_from is None else adversarial_from
        self.model = CodecModel(settings).to(device)
        self.tokens_fixed = False
        self.judges = Discriminators().to(device)
        self.mel = MelLoss(settings.sample_rate_hz).to(device)
        self.modules: dict[str, Any] = {"model": self.model, "judges": self.judges}
        self.optimizers = {
            name: torch.optim.AdamW(module.parameters(), lr=settings.lr * share, betas=(0.8, 0.99), weight_decay=0.0)
            for (name, module), share in zip(self.modules.items(), (1.0, 0.5), strict=True)
        }

    def step(self, batch: Callable[..., Float[Tensor, "B 1 N"]], step: int, factor: float) -> dict[str, Tensor]:
        """Learn from the batch of a step at `factor` times the learning rate; returns the losses.

        `batch(step, seed=0)` gives the audio; seed 1 is for the codebooks' beginning.

        Raises:
            FloatingPointError: the loss is not finite; nothing was learnt from this batch.
        """
        torch.manual_seed(1_000_003 * (self.settings.seed + 1) + step)
        self.model.train()
        if self.tokens_fixed:
            fix_tokens(self.model)
        if step == self.settings.quantize_from:
            self.start_codebooks(batch)
        wave, optimizer = batch(step), self.optimizers["model"]
        for group in optimizer.param_groups:
            group["lr"] = self.settings.lr * factor
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            quantize = step >= self.settings.quantize_from
            made = self.model(wave, quantize=quantize, drop_from=drop_from(step, self.settings))
        losses = {"wave": (made.audio - wave).abs().mean(), "commitment": made.commitment}
        losses["mel"], losses["attacks"] = self.mel.with_attacks(made.audio, wave)
        loss = losses["mel"] + ATTACK_WEIGHT * losses["attacks"] + WAVE_WEIGHT * losses["wave"] + losses["commitment"]
        if 0 <= self.adversarial_from <= step:
            loss = loss + self._adversarial(wave, made.audio, losses)
        if not loss.isfinite():
            raise FloatingPointError(f"the loss at step {step + 1} is not finite; the last saved state is whole")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        optimizer.step()
        return losses

    @torch.no_grad()
    def start_codebooks(self, batch: Callable[..., Float[Tensor, "B 1 N"]]) -> None:
        """Begin the codebooks on the latents of many batches."""
        latents = [self.model.encoder(batch(step, seed=1)).transpose(1, 2) for step in range(KMEANS_BATCHES)]
        self.model.quantizer(torch.cat(latents))

    def _adversarial(self, wave: Tensor, made: Tensor, losses: dict[str, Tensor]) -> Tensor:
        """Teach the discriminators on this batch, then say how well the codec fools them."""
        losses["judges"] = discriminator_loss(self.judges(wave), self.judges(made.detach()))
        optimizer = self.optimizers["judges"]
        optimizer.zero_grad(set_to_none=True)
        losses["judges"].backward()
        optimizer.step()
        with torch.no_grad():
            real = self.judges(wave)
        losses["fooling"], losses["matching"] = generator_losses(real, self.judges(made))
        return ADVERSARIAL_WEIGHT * losses["fooling"] + MATCHING_WEIGHT * losses["matching"]


def fix_tokens(model: CodecModel) -> None:
    """Freeze all that decides the codes: encoder, projections and codebooks. The decoder goes on learning."""
    model.encoder.requires_grad_(False)
    for name, part in model.quantizer.named_children():
        if name != "project_out":
            part.requires_grad_(False)
            part.eval()


def drop_from(step: int, settings: CodecSettings) -> int | None:
    """Quantiser dropout: in a share of the steps only the first n codebooks are used."""
    generator = torch.Generator().manual_seed(7_919 * step + 1)
    if torch.rand((), generator=generator) >= settings.quantizer_dropout:
        return None
    return int(torch.randint(1, settings.n_codebooks + 1, (), generator=generator))


def lr_factor(step: int, share_done: float) -> float:
    """Warm up over 50 steps, hold, and fall to a twentieth over the last third."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * max(0.05, min(1.0, 3 * (1 - share_done)))
