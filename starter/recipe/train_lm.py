"""Train the language model with its text encoder on a collection's tokens; run it again to go on.

    python -m starter.recipe.train_lm /tmp/starter/tokens /tmp/starter/lm --size cpu --minutes 10

It runs in bf16 where that is fast, and compiled on a GPU. `--decay` makes the learning rate fall to zero within this
stage. On a CPU, with one process per core a step hears as many times more in the same time (`starter.recipe.team`):

    python -m torch.distributed.run --nproc-per-node 2 -m starter.recipe.train_lm /tmp/starter/tokens /tmp/starter/lm
"""

import argparse
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from data_prep.device import cpu_has_bf16
from data_prep.lm_spec import interleaved_lags
from finetune.codec_train.model import encodec_config
from finetune.codec_train.settings import CodecSettings
from starter.recipe import team
from starter.recipe.lm_model import TextToCodes, musicgen_config
from starter.recipe.sizes import CODEC_SIZES, FRAME_RATE_HZ, LM_SIZES, LMSize
from starter.recipe.stage import Stage, pick_device
from starter.recipe.tokenizer import write_tokenizer
from starter.recipe.tokens import Tokens

LOG_EVERY, SAVE_EVERY = 20, 500
AUXILIARY_WEIGHT = 0.4
"""Of what captions and beats ask, beside the mean cross-entropy of the codes: no task may outweigh the music."""
INNER = re.compile(r"^lm\.decoder\..*\.layers\.")
"""Names of what is inside the decoder's layers."""


def build(folder: Path, size: LMSize, codec: CodecSettings, tokens: Tokens | None = None) -> TextToCodes:
    """The untrained model; the tokenizer is learnt from the captions of `tokens` unless the folder holds one."""
    if not (folder / "tokenizer.json").exists():
        assert tokens is not None, "a first stage needs captions to learn a tokenizer from"
        write_tokenizer(folder, (c for facts in tokens.facts for c in facts["captions"]), size.vocabulary)
    vocabulary = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    return TextToCodes(musicgen_config(size, encodec_config(codec, codec.codebook_dim), vocabulary), folder)


def train_lm(
    tokens: Tokens, folder: Path, size: LMSize, codec: CodecSettings, *, minutes: float, decay_from_now: bool = False
) -> int:
    """One stage of training; returns the step it ended at."""
    # 1. What trains
    rank = team.join()
    device = pick_device()
    torch.manual_seed(0)
    model = team.first_alone(lambda: build(folder, size, codec, tokens)).to(device)
    optimizers = make_optimizers(model, size)
    stage = Stage(folder, {"model": model}, optimizers, minutes)
    if device.type == "cuda":
        model.lm.decoder.compile()
    learner = team.together(model)

    # 2. The loop
    while stage.step < size.steps and (left := team.agree(stage.left)) > 0:
        set_lr(optimizers.values(), size, 1 - left if decay_from_now else stage.step / size.steps, stage.step)
        loss, said = loss_of_step(learner, tokens, size, stage.step, rank)
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if not torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).isfinite():
            raise FloatingPointError(f"the gradient of step {stage.step} is not finite; the last saved state is whole")
        for optimizer in optimizers.values():
            optimizer.step()
        stage.step += 1
        if rank == 0 and stage.step % LOG_EVERY == 0:
            lr = optimizers["adamw"].param_groups[0]["lr"]
            stage.log(**{name: float(value) for name, value in said.items()}, lr=lr)
        if rank == 0 and stage.step % SAVE_EVERY == 0:
            stage.save()
    if rank == 0:
        stage.save()
    return stage.step


def loss_of_step(
    model: nn.Module, tokens: Tokens, size: LMSize, step: int, rank: int = 0
) -> tuple[Float[Tensor, ""], dict[str, float | Tensor]]:
    """The loss of the crops that one process of the team hears in a step, and what it is made of."""
    device = next(model.parameters()).device
    n_frames = crop_frames(step, size)
    n = max(1, size.batch_frames // n_frames)
    codes, captions, known = tokens.batch(step, n=n, n_frames=n_frames, dropout=size.condition_dropout, seed=rank)
    hidden = hidden_steps(step, size, n, n_frames + max(interleaved_lags(codes.shape[1], 1)), rank)
    with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device)):
        losses, tasks = model(codes.to(device), captions, known, hidden.to(device))  # [K], by name
    loss = losses.mean() + AUXILIARY_WEIGHT * torch.stack(list(tasks.values())).sum()
    said = {f"ce{k}": ce.detach() for k, ce in enumerate(losses)}
    said |= {name: value.detach() for name, value in tasks.items()}
    return loss, {"n_frames": n_frames, **said}


def make_optimizers(model: TextToCodes, size: LMSize) -> dict[str, torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices inside the decoder's layers, AdamW for everything else.

    Muon's steps are scaled to AdamW's (Liu et al. 2025, arXiv:2502.16982), so that both share one learning rate.
    """
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and INNER.search(name)]
    chosen = {id(p) for p in inner}
    outer = [p for p in model.parameters() if id(p) not in chosen]
    return {
        "muon": torch.optim.Muon(inner, lr=size.lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        "adamw": torch.optim.AdamW(outer, lr=size.lr, betas=(0.9, 0.98), weight_decay=0.0),
    }


def fast_bf16(device: torch.device) -> bool:
    """Whether products in bf16 are faster than in fp32 there: on GPUs, and on CPUs that have them."""
    return device.type == "cuda" or cpu_has_bf16()


def crop_frames(step: int, size: LMSize) -> int:
    """How long the crops of this step are."""
    generator = torch.Generator().manual_seed(7_919 * step + 3)
    drawn = int(torch.randint(len(size.crops_sec), (), generator=generator))
    return round(size.crops_sec[drawn] * FRAME_RATE_HZ)


def hidden_steps(step: int, size: LMSize, n: int, n_steps: int, rank: int = 0) -> Bool[Tensor, "{n} {n_steps}"]:
    """What of each clip's past is hidden in this step: nothing, or any share of it."""
    generator = torch.Generator().manual_seed(7_919 * step + 2 + 1_000_000_007 * rank)
    chosen = torch.rand(n, generator=generator) < size.context_dropout
    share = chosen * torch.rand(n, generator=generator)
    return torch.rand(n, n_steps, generator=generator) < share[:, None]


def set_lr(optimizers: Iterable[torch.optim.Optimizer], size: LMSize, done: float, step: int) -> None:
    """Linear warm-up, then a cosine down to a twentieth as `done` goes from 0 to 1."""
    warm = min(1.0, (step + 1) / size.warmup_steps)
    factor = warm * (0.05 + 0.95 * (1 + math.cos(math.pi * min(1.0, done))) / 2)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = size.lr * factor


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=sorted(LM_SIZES), default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=9.5, help="length of this stage")
    parser.add_argument("--decay", action="store_true", help="last stage: let the learning rate fall to zero in it")
    args = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    step = train_lm(
        Tokens(args.tokens),
        args.folder,
        LM_SIZES[args.size],
        CODEC_SIZES[args.size],
        minutes=args.minutes,
        decay_from_now=args.decay,
    )
    print(f"step {step} of {LM_SIZES[args.size].steps}")


if __name__ == "__main__":
    main()
