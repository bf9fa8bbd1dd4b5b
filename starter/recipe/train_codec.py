"""Train the codec on a collection; run it again to go on.

    python -m starter.recipe.train_codec /tmp/starter/audio /tmp/starter/codec --size cpu --minutes 10

On a GPU it runs in bf16 and compiled. With `--discriminators` they join at once, whatever the size says. With
`--tokens-fixed` only the decoder goes on learning: what was tokenised before stays valid, and the language model can
be trained at the same time. `--begin BASE` begins a new folder with the codec of a base that was exported before.
"""

import argparse
from pathlib import Path

import torch

from data_prep.base_files import resolve_base
from data_prep.codec import encodec
from data_prep.codec.registry import base_codec_source
from data_prep.codec_measures.code_use import CodeUse
from finetune.codec_train.crops import Crops
from finetune.codec_train.export import from_encodec
from finetune.codec_train.learner import Learner, lr_factor
from finetune.codec_train.model import CodecModel
from finetune.codec_train.settings import CodecSettings
from starter.recipe.crops import crops_of
from starter.recipe.sizes import CODEC_SIZES
from starter.recipe.stage import Stage, pick_device

LOG_EVERY, SAVE_EVERY, COUNTED_BATCHES = 20, 200, 24


def train_codec(
    audio: Path,
    folder: Path,
    size: CodecSettings,
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
    learner = Learner(size, device)
    model = learner.model
    stage = Stage(folder, learner.modules, learner.optimizers, minutes)
    if begin and stage.step == 0:
        from_encodec(encodec.load(base_codec_source(resolve_base(begin)), device).model, model)
        stage.step = size.quantize_from + 1  # the codebooks are there

    # 2. What it hears, and how it computes
    crops = crops_of(audio, size, device)
    if device.type == "cuda":
        model.encoder.compile()
        model.decoder.compile()
    if discriminators:
        learner.adversarial_from = stage.step
    learner.tokens_fixed = tokens_fixed

    # 3. The loop
    while stage.step < size.steps and not stage.over:
        done = 2 / 3 + (1 - stage.left) / 3 if decay_from_now else stage.step / size.steps
        factor = lr_factor(stage.step, done)
        losses = learner.step(crops.batch, stage.step, factor)
        stage.step += 1
        if stage.step % LOG_EVERY == 0:
            stage.log(**{name: value.item() for name, value in losses.items()}, lr=size.lr * factor)
        if stage.step % SAVE_EVERY == 0:
            stage.save()
    stage.save()

    # 4. How well the codebooks are used
    if stage.step > size.quantize_from:
        use = code_use(model, crops)
        for number, (used, perplexity) in enumerate(zip(use.shares_in_use(), use.perplexity(), strict=True)):
            stage.log(codebook=number, used=used, perplexity=perplexity)
        stage.log(bitrate_efficiency=use.bitrate_efficiency())
    return stage.step


@torch.no_grad()
def code_use(model: CodecModel, crops: Crops) -> CodeUse:
    """How often each code is chosen, over random crops that training has not drawn."""
    use = CodeUse(model.settings.n_codebooks, model.settings.card)
    model.eval()
    for step in range(COUNTED_BATCHES):
        for codes in model(crops.batch(step, seed=2), quantize=True).codes:
            use.add(codes.T.cpu().numpy())
    model.train()
    return use


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
