"""`woodshed codec train`, from songs to the codec and its page; one codec, or one per option."""

from pathlib import Path

import torch

from configs.errors import UserError
from finetune.codec_train.options import options
from finetune.codec_train.page import write_page
from finetune.codec_train.settings import CodecSettings
from finetune.codec_train.train import EVERY_STEPS, PAGE, Trained, train


def train_one(songs: Path, out: Path, settings: CodecSettings, device: torch.device) -> Trained:
    """Train a codec and write its page."""
    trained = train(songs, out, settings, device)
    write_page(out, [("this codec", trained)])
    return trained


def train_each_option(
    songs: Path, out: Path, settings: CodecSettings, device: torch.device
) -> list[tuple[str, Trained]]:
    """One short training per option, each in a folder of its own below `out`, and the page that compares them.

    Finished ones are kept, so a comparison that was stopped goes on.

    Raises:
        UserError: settings, songs or `out` cannot be used.
    """
    settings.check()
    every = list(options(settings))
    names = {option.name for option in every} | {PAGE}
    if out.exists() and any(path.name not in names for path in out.iterdir()):
        raise UserError("The folder for the comparison holds other things.", where=str(out), fix="Give another one.")
    trained = []
    for option in every:
        print(option.words, flush=True)
        every_steps = min(EVERY_STEPS, max(1, settings.steps // 5))
        trained.append(
            (option.words, train(songs, out / option.name, option.settings, device, every_steps=every_steps))
        )
    write_page(out, trained)
    return trained
