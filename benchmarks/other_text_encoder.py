"""The starter with a second small text encoder, against its own: the figures in docs/text-encoders.md.

    python -m benchmarks.other_text_encoder encoder FOLDER        # a random T5 of 64 numbers, with the starter's words
    woodshed prep starter/songs DATA --base starter --text_encoder FOLDER --segment.max_sec 10
    python -m benchmarks.other_text_encoder train DATA RUN [--steps 40]
    python -m benchmarks.other_text_encoder words DATA RUN

`train` is equal to that of `benchmarks.patterns_trained`. `words` asks the adapter for the held-out clips with their
own captions, with none, and with those of other clips. Cross-entropy in nats per code.
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from adapters.adapter_files import load
from adapters.family.lm import LM
from adapters.family.load import load_lm
from adapters.lora import attach_updates
from benchmarks.patterns_trained import settings_of
from data_prep.base_files import resolve_base
from data_prep.move import move_of_info
from data_prep.prepared import PreparedDataset
from finetune.batches import Draw, clips_of, collate, held_out
from finetune.loss import codebook_counts, codebook_sums
from finetune.run_log import read_log
from finetune.train import train

WIDTH = 64


def write_encoder(folder: Path) -> None:
    """Random weights: its states tell words apart and mean nothing else; what they mean is for the projection."""
    from transformers import T5Config, T5EncoderModel

    starter = resolve_base("starter").folder
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(starter / name, folder / name)
    torch.manual_seed(0)
    config = T5Config(d_model=WIDTH, d_ff=128, d_kv=16, num_heads=4, num_layers=2, vocab_size=240)
    T5EncoderModel(config).eval().save_pretrained(folder)


@torch.no_grad()
def loss(lm: LM, dataset: PreparedDataset, draws: Sequence[Draw]) -> float:
    """Over all codebooks."""
    sums = counts = 0.0
    for draw in draws:
        batch = collate([draw], dataset, lm.spec)
        inputs, labels = lm.inputs_and_labels(batch.codes, batch.n_frames)
        sums += float(codebook_sums(lm(inputs, batch.conditions), labels).sum())
        counts += float(codebook_counts(labels).sum())
    return sums / counts


def words(data: Path, run: Path) -> None:
    """What the captions are worth."""
    dataset, adapter = PreparedDataset(data), load(run / "adapter")
    files = resolve_base("starter").moved(move_of_info(dataset.info))
    lm = load_lm(files, whole=adapter.whole or None)
    attach_updates(lm, adapter.updates)
    own = held_out(clips_of(dataset, "validation"), max_clips=64, max_frames=250)
    none = [replace(draw, caption=None) for draw in own]
    captions = sorted({clip.captions[0] for clip in clips_of(dataset, "train")})
    other = [replace(draw, caption=captions[number % len(captions)]) for number, draw in enumerate(own)]
    for name, draws in (("own captions", own), ("no captions", none), ("captions of other clips", other)):
        print(f"{name}: {loss(lm, dataset, draws):.4f}")


def main() -> None:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["encoder", "train", "words"])
    parser.add_argument("source", type=Path)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    if args.what == "encoder":
        write_encoder(args.source)
    elif args.what == "words":
        words(args.source, args.run)
    else:
        train(args.source, args.run, settings_of("delay", args.steps).model_copy(update={"pattern": None}))
        last = {line["kind"]: line for line in read_log(args.run / "log.jsonl")}
        print(f"before {sum(last['base']['codebooks']) / 4:.4f}, after {sum(last['eval']['codebooks']) / 4:.4f}")


if __name__ == "__main__":
    main()
