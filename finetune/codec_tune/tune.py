"""`woodshed codec tune`: the decoder of a codec learns from recordings; encoder, quantiser and so every token stay.

The losses are those that made the starter's codec: log-mel spectrograms at four resolutions, onset envelopes, the
waveform, and, if asked for, STFT discriminators with feature matching. Crops are decoded with context that is cut off
again, so that the decoder learns the middle of music and not its own padding. With other music at hand, the decoder is
drawn back towards the old one until that music loses no more than it may.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from configs.errors import UserError
from data_prep.codec.transformers_codec import TransformersCodec
from data_prep.codec.tuned_decoder import decoder_of, read_decoder, save_decoder, use_decoder
from data_prep.safe_write import written_beside
from finetune.codec_tune.discriminators import Discriminators, discriminator_loss, generator_losses
from finetune.codec_tune.losses import ATTACK_WEIGHT, WAVE_WEIGHT, MelLoss
from finetune.codec_tune.recordings import Crops, Recording, hold_out, read_recordings
from finetune.codec_tune.state import STATE, load_state, save_state
from finetune.codec_tune.strength import choose_strength

ADVERSARIAL_WEIGHT, MATCHING_WEIGHT = 0.1, 1.0
CONTEXT_SEC = 0.16
MEASURED_SEC = 10.0
"""Of each held-out song at most so much, from its middle, is decoded and measured."""
DECODER, LOG = "decoder.safetensors", "log.jsonl"
FULL = "decoder-full.safetensors"
"""The best decoder of the run as it was learnt, where `DECODER` may have been drawn back."""
FORGET = 0.02
"""Other music's mel distance may grow by this share."""


@dataclass(frozen=True)
class TuneSettings:
    """How a decoder is tuned.

    Attributes:
        steps: optimizer steps in all.
        lr: learning rate after a warm-up of 20 steps; it falls along a half cosine to a twentieth.
        batch_size: crops per step.
        crop_sec: length of a crop, without its context.
        every_steps: steps between two measurements of the held-out songs; the best one is kept.
        other_share: share of crops from other music, if there is any.
        discriminators: train against STFT discriminators too.
        seed: of the crops.
    """

    steps: int = 600
    lr: float = 3e-4
    batch_size: int = 6
    crop_sec: float = 0.6
    every_steps: int = 100
    other_share: float = 0.25
    discriminators: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Tuned:
    """Mel distance (nats, four resolutions) before and after, of held-out songs and, if given, of other music."""

    path: Path
    before: float
    after: float
    other_before: float | None
    other_after: float | None
    best_step: int
    strength: float
    """How far the decoder went from the old one (0) to the one that was learnt (1)."""
    full: float
    other_full: float | None
    """Both distances at strength 1."""
    left_out: list[str]


def tune(
    songs: Path,
    out: Path,
    codec: TransformersCodec,
    settings: TuneSettings,
    *,
    other: Path | None = None,
    forget: float = FORGET,
) -> Tuned:
    """Tune the codec's decoder on a folder of songs, or go on with a run that was stopped. Writes `out`.

    Where other music is given, its held-out pieces may lose a share `forget` of their mel distance; the decoder is
    drawn back until they do. The same run with another `forget` only chooses again.

    Raises:
        UserError: songs cannot be used, or `out` holds a run of other settings, songs or another codec.
        FloatingPointError: the loss is not finite; the best decoder so far is kept.
    """
    # 1. What it hears
    shortest_sec = settings.crop_sec + 2 * CONTEXT_SEC
    recordings, left_out = read_recordings(songs, codec, shortest_sec=shortest_sec)
    kept, held = hold_out(recordings)
    others, guard, more_left_out = [], [], []
    if other is not None:
        found, more_left_out = read_recordings(other, codec, shortest_sec=shortest_sec)
        others, guard = hold_out(found)
    crops = Crops(kept, others, other_share=settings.other_share, seed=settings.seed, hop=codec.hop_samples)

    # 2. What learns
    old = {name: value.detach().clone() for name, value in decoder_of(codec).state_dict().items()}
    decoder = decoder_of(codec).requires_grad_(True).train()  # cuDNN's LSTM goes backwards in train mode only
    mel = MelLoss(codec.sample_rate_hz).to(codec.device)
    torch.manual_seed(settings.seed)
    judges = Discriminators().to(codec.device) if settings.discriminators else None
    modules: dict[str, Any] = {"decoder": decoder} | ({"judges": judges} if judges is not None else {})
    optimizers = {
        name: torch.optim.AdamW(module.parameters(), lr=settings.lr, betas=(0.8, 0.99), weight_decay=0.0)
        for name, module in modules.items()
    }

    # 3. Where it stands
    run = {"codec": codec.fingerprint, "songs": [one.name for one in recordings], **asdict(settings)}
    run["other_music"] = [one.name for one in (*others, *guard)]
    told = _begin(out, run, modules, optimizers)
    if told is None:
        before = measure(codec, mel, held), measure(codec, mel, guard) if guard else None
        told = {"run": run, "step": 0, "before": before, "best": before[0], "best_step": 0, "other": before[1]}
        _log(out, {"step": 0, "held_out_mel": before[0], "other_mel": before[1]})
        save_decoder(out / DECODER, codec, _words(told))

    # 4. The loop
    while told["step"] < settings.steps:
        step = told["step"]
        losses = _step(codec, mel, judges, optimizers, crops, settings, step)
        told["step"] = step + 1
        if told["step"] % settings.every_steps == 0 or told["step"] == settings.steps:
            now = measure(codec, mel, held)
            aside = measure(codec, mel, guard) if guard else None
            _log(out, {"step": told["step"], **losses, "held_out_mel": now, "other_mel": aside})
            if now < told["best"]:
                told |= {"best": now, "best_step": told["step"], "other": aside}
                save_decoder(out / DECODER, codec, _words(told))
            save_state(out, modules, optimizers, told)

    # 5. How much of it is used
    decoder.requires_grad_(False).eval()
    (first, first_other), full, other_full = told["before"], told["best"], told["other"]
    own, aside, strength = full, other_full, 1.0
    if guard:
        chosen = choose_strength(
            decoder, old, _as_learnt(out), own=lambda: measure(codec, mel, held),
            other=lambda: measure(codec, mel, guard), other_at_most=first_other * (1 + forget),
        )  # fmt: skip
        own, aside, strength = chosen.own, chosen.other, chosen.strength
        _log(out, {"step": told["best_step"], "strength": strength, "held_out_mel": own, "other_mel": aside})
        save_decoder(out / DECODER, codec, _words(told | {"best": own}) | {"strength": f"{strength:g}"})
    use_decoder(codec, out / DECODER)
    lines, step = [*left_out, *more_left_out], told["best_step"]
    return Tuned(out / DECODER, first, own, first_other, aside, step, strength, full, other_full, lines)


def _as_learnt(out: Path) -> dict[str, Tensor]:
    """The run's best decoder, kept beside the one that is drawn back, so that a strength can be chosen again."""
    if not (out / FULL).exists():
        with written_beside(out / FULL) as part:
            shutil.copyfile(out / DECODER, part)
    return read_decoder(out / FULL)[0]


@torch.inference_mode()
def measure(codec: TransformersCodec, mel: MelLoss, recordings: Sequence[Recording]) -> float:
    """Mean mel distance of recordings decoded from their codes, in nats."""
    distances = []
    for one in recordings:
        n_frames = min(one.codes.shape[1], codec.spec.frames_in(MEASURED_SEC))
        start = (one.codes.shape[1] - n_frames) // 2
        made = codec.decode(np.ascontiguousarray(one.codes[:, start : start + n_frames]))
        hop = codec.hop_samples
        wanted = torch.from_numpy(one.audio[:, start * hop : (start + n_frames) * hop].astype(np.float32) / 32767)
        pair = (audio[:, None].to(codec.device) for audio in (made, wanted))
        distances.append(float(mel(*pair)))
    return float(np.mean(distances))


def _step(
    codec: TransformersCodec,
    mel: MelLoss,
    judges: Discriminators | None,
    optimizers: dict[str, torch.optim.AdamW],
    crops: Crops,
    settings: TuneSettings,
    step: int,
) -> dict[str, float]:
    n_frames, context = codec.spec.frames_in(settings.crop_sec), codec.spec.frames_in(CONTEXT_SEC)
    crop = crops.batch(step, settings.batch_size, n_frames, context)
    wanted = crop.audio.to(codec.device).flatten(0, 1)[:, None]  # [B * C, 1, N]
    made = _decode(codec, crop.codes.to(codec.device))
    made = made[:, :, context * codec.hop_samples : (context + n_frames) * codec.hop_samples]
    losses = {"wave": (made - wanted).abs().mean()}
    losses["mel"], losses["attacks"] = mel.with_attacks(made, wanted)
    loss = losses["mel"] + ATTACK_WEIGHT * losses["attacks"] + WAVE_WEIGHT * losses["wave"]
    if judges is not None:
        losses["judges"] = discriminator_loss(judges(wanted), judges(made.detach()))
        _learn(optimizers["judges"], losses["judges"], settings, step)
        with torch.no_grad():
            real = judges(wanted)
        losses["fooling"], losses["matching"] = generator_losses(real, judges(made))
        loss = loss + ADVERSARIAL_WEIGHT * losses["fooling"] + MATCHING_WEIGHT * losses["matching"]
    if not loss.isfinite():
        raise FloatingPointError(f"the loss at step {step + 1} is not finite; the best decoder so far is kept")
    _learn(optimizers["decoder"], loss, settings, step)
    return {name: float(value.detach()) for name, value in losses.items()}


def _learn(optimizer: torch.optim.AdamW, loss: Tensor, settings: TuneSettings, step: int) -> None:
    left = 1 - step / settings.steps
    factor = min(1.0, (step + 1) / 20) * (0.05 + 0.95 * (0.5 - 0.5 * float(np.cos(np.pi * left))))
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * factor
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()


def _decode(codec: TransformersCodec, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "M 1 N"]:
    """Audio of each channel of each crop, with gradients."""
    per_stream = codes.unflatten(1, (-1, codec.streams)).transpose(1, 2).flatten(0, 1)  # [B * streams, k, T]
    return codec.decode_batch(per_stream).flatten(0, 1)[:, None]


def _begin(
    out: Path, run: dict[str, Any], modules: dict[str, Any], optimizers: dict[str, torch.optim.AdamW]
) -> dict[str, Any] | None:
    """What an earlier run kept, or None where there is none."""
    if not (out / STATE).exists():
        if out.exists() and any(path.name not in (DECODER, FULL, LOG) for path in out.iterdir()):
            raise UserError("The folder for the decoder holds other things.", where=str(out), fix="Give another one.")
        out.mkdir(parents=True, exist_ok=True)
        for name in (LOG, FULL):
            (out / name).unlink(missing_ok=True)
        return None
    told = load_state(out, modules, optimizers)
    told["run"].setdefault("other_music", run["other_music"])  # older runs did not write it down
    changed = [name for name, value in run.items() if told["run"].get(name) != value]
    if bool(run["other_music"]) != (told["before"][1] is not None):
        changed = changed or ["other_music"]
    if changed:
        raise UserError(
            f"This folder holds a run with another {', '.join(changed)}.",
            where=str(out),
            fix="Give the same songs and settings to go on with it, or another folder.",
        )
    return told


def _words(told: dict[str, Any]) -> dict[str, str]:
    """What the decoder's file says of how it was made."""
    return {
        "songs": str(len(told["run"]["songs"])),
        "step": str(told["step"]),
        "held_out_mel_before": f"{told['before'][0]:.4f}",
        "held_out_mel_after": f"{told['best']:.4f}",
    }


def _log(out: Path, line: dict[str, Any]) -> None:
    rounded = {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in line.items()}
    with (out / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(rounded) + "\n")
    print("  ".join(f"{name} {value}" for name, value in rounded.items() if value is not None), flush=True)
