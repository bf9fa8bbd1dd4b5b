"""Train the codec on a collection; run it again to go on.

    python -m starter.recipe.train_codec /tmp/starter/audio /tmp/starter/codec --size cpu --minutes 10

On a GPU it runs in bf16 and compiled. With `--discriminators` they join at once, whatever the size says. With
`--tokens-fixed` only the decoder goes on learning: what was tokenised before stays valid, and the language model can
be trained at the same time. `--begin BASE` begins a new folder with the codec of a base that was exported before.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from data_prep.base_files import resolve_base
from data_prep.codec import encodec
from data_prep.codec.registry import base_codec_source
from finetune.codec_tune.discriminators import Discriminators, discriminator_loss, generator_losses
from finetune.codec_tune.losses import ATTACK_WEIGHT, COMMITMENT_WEIGHT, WAVE_WEIGHT, MelLoss
from starter.recipe.codec_export import from_encodec
from starter.recipe.codec_model import CodecModel
from starter.recipe.crops import Crops
from starter.recipe.sizes import CODEC_SIZES, CodecSize
from starter.recipe.stage import Stage, pick_device
from starter.recipe.utilisation import utilisation

ADVERSARIAL_WEIGHT, MATCHING_WEIGHT = 0.1, 1.0
LOG_EVERY, SAVE_EVERY, KMEANS_BATCHES = 20, 200, 24


def train_codec(
    audio: Path,
    folder: Path,
    size: CodecSize,
    *,
    minutes: float,
    discriminators: bool = False,
    decay_from_now: bool = False,
    tokens_fixed: bool = False,
    begin: str | None = None,
) -> int:
    """One stage of training; returns the step it ended at.

    `decay_from_now` makes the learning rate fall to zero over the minutes of this stage, whatever `size.steps` says.
    `begin` is a base whose codec a new folder begins with.
    """
    # 1. What trains
    device = pick_device()
    torch.manual_seed(0)
    model = CodecModel(size).to(device)
    judges = Discriminators().to(device)
    mel_loss = MelLoss(size.sample_rate_hz).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=size.lr, betas=(0.8, 0.99), weight_decay=0.0)
    judge_optimizer = torch.optim.AdamW(judges.parameters(), lr=size.lr / 2, betas=(0.8, 0.99), weight_decay=0.0)
    stage = Stage(folder, {"model": model, "judges": judges}, {"model": optimizer, "judges": judge_optimizer}, minutes)
    if begin and stage.step == 0:
        from_encodec(encodec.load(base_codec_source(resolve_base(begin)), device).model, model)
        stage.step = size.quantize_from + 1  # the codebooks are there

    # 2. What it hears, and how it computes
    crops = Crops(audio, size.crop_sec, size.batch_size, device)
    if crops.sample_rate_hz != size.sample_rate_hz:
        raise ValueError(f"the collection is at {crops.sample_rate_hz} Hz, the codec at {size.sample_rate_hz}")
    if device.type == "cuda":
        model.encoder.compile()
        model.decoder.compile()
    adversarial_from = stage.step if discriminators else size.adversarial_from

    # 3. The loop
    model.train()
    if tokens_fixed:
        fix_tokens(model)
    while stage.step < size.steps and not stage.over:
        _set_lr(optimizer, size, stage, decay_from_now)
        wave = crops.batch(stage.step)
        quantize = stage.step >= size.quantize_from
        if stage.step == size.quantize_from:
            _start_codebooks(model, crops)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            made = model(wave, quantize=quantize, drop_from=_drop_from(stage.step, size))
        losses = {"wave": (made.audio - wave).abs().mean(), "commitment": made.commitment}
        losses["mel"], losses["attacks"] = mel_loss.with_attacks(made.audio, wave)
        loss = (
            losses["mel"]
            + ATTACK_WEIGHT * losses["attacks"]
            + WAVE_WEIGHT * losses["wave"]
            + COMMITMENT_WEIGHT * losses["commitment"]
        )
        if 0 <= adversarial_from <= stage.step:
            loss = loss + _adversarial(judges, judge_optimizer, wave, made.audio, losses)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        stage.step += 1
        if not loss.isfinite():
            raise FloatingPointError(f"the loss at step {stage.step} is not finite; the last saved state is whole")
        if stage.step % LOG_EVERY == 0:
            stage.log(**{name: value.item() for name, value in losses.items()}, lr=optimizer.param_groups[0]["lr"])
        if stage.step % SAVE_EVERY == 0:
            stage.save()
    stage.save()

    # 4. How well the codebooks are used
    for number, use in enumerate(utilisation(model, crops) if stage.step > size.quantize_from else ()):
        stage.log(codebook=number, used=use.share_used, perplexity=use.perplexity, bitrate_efficiency=use.efficiency)
    return stage.step


def fix_tokens(model: CodecModel) -> None:
    """Freeze all that decides the codes: encoder, projection and codebooks. The decoder goes on learning."""
    for part in (model.encoder, model.quantizer.project_in, model.quantizer.layers):
        part.requires_grad_(False)
    model.quantizer.eval()


def _adversarial(
    judges: Discriminators, optimizer: torch.optim.Optimizer, wave: Tensor, made: Tensor, losses: dict[str, Tensor]
) -> Tensor:
    """Teach the discriminators on this batch, then say how well the codec fools them."""
    losses["judges"] = discriminator_loss(judges(wave), judges(made.detach()))
    optimizer.zero_grad(set_to_none=True)
    losses["judges"].backward()
    optimizer.step()
    with torch.no_grad():
        real = judges(wave)
    losses["fooling"], losses["matching"] = generator_losses(real, judges(made))
    return ADVERSARIAL_WEIGHT * losses["fooling"] + MATCHING_WEIGHT * losses["matching"]


@torch.no_grad()
def _start_codebooks(model: CodecModel, crops: Crops) -> None:
    """k-means on the latents of many batches: one batch holds too few for the codebooks' first guess."""
    latents = [model.encoder(crops.batch(step, seed=1)).transpose(1, 2) for step in range(KMEANS_BATCHES)]
    model.quantized(torch.cat(latents))


def _drop_from(step: int, size: CodecSize) -> int | None:
    """Quantizer dropout: in a share of the steps only the first n codebooks are used."""
    generator = torch.Generator().manual_seed(7_919 * step + 1)
    if torch.rand((), generator=generator) >= size.quantizer_dropout:
        return None
    return int(torch.randint(1, size.n_codebooks + 1, (), generator=generator))


def _set_lr(optimizer: torch.optim.Optimizer, size: CodecSize, stage: Stage, decay_from_now: bool) -> None:
    """Warm up over 50 steps, hold, and fall to a twentieth over the last third."""
    done = 2 / 3 + (1 - stage.left) / 3 if decay_from_now else stage.step / size.steps
    factor = min(1.0, (stage.step + 1) / 50) * max(0.05, min(1.0, 3 * (1 - done)))
    for group in optimizer.param_groups:
        group["lr"] = size.lr * factor


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=sorted(CODEC_SIZES), default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=9.5, help="length of this stage")
    parser.add_argument("--discriminators", action="store_true", help="from the first step of this stage")
    parser.add_argument("--decay", action="store_true", help="last stage: let the learning rate fall to zero in it")
    parser.add_argument("--tokens-fixed", action="store_true", help="only the decoder learns in this stage")
    parser.add_argument("--begin", metavar="BASE", help="begin a new folder with this base's codec")
    args = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    step = train_codec(
        args.audio,
        args.folder,
        CODEC_SIZES[args.size],
        minutes=args.minutes,
        discriminators=args.discriminators,
        decay_from_now=args.decay,
        tokens_fixed=args.tokens_fixed,
        begin=args.begin,
    )
    print(f"step {step} of {CODEC_SIZES[args.size].steps}")


if __name__ == "__main__":
    main()
