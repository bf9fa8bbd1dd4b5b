"""The starter moved to a small random DAC, against an LM that starts afresh: the table in docs/codecs.md.

    python -m benchmarks.other_codec codec SONGS CODEC                     # a random DAC
    woodshed prep SONGS DATA --base starter --codec CODEC --segment.max_sec 10
    python -m benchmarks.other_codec moved DATA OUT [--steps 60]           # adapter on the starter
    python -m benchmarks.other_codec fresh DATA OUT [--steps 60]           # the same LM, all of it random, all learns

A random DAC's codes are a fixed function of the sound, which nobody could listen to: what is tried is whether an LM
learns them. Both see the same clips in the same order, as often. Cross-entropy is that of the held-out clips, in nats
per code; log(card) is that of knowing nothing. One thread of a CPU; seconds are this process's own.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adapters.conditions import Conditions
from adapters.family.lm import LM
from adapters.family.port import family_named
from benchmarks.patterns_trained import settings_of
from configs.train import TrainSettings
from data_prep.base_files import resolve_base
from data_prep.move import move_of_info
from data_prep.prepared import PreparedDataset
from finetune.batches import Draw, Stream, clips_of, collate, held_out
from finetune.loss import codebook_counts, codebook_sums
from finetune.run_log import read_log
from finetune.schedule import factor
from finetune.train import train

RATE_HZ, HOP = 16_000, 256
SIZES = {
    "encoder_hidden_size": 8, "decoder_hidden_size": 96, "downsampling_ratios": [4, 4, 4, 4], "n_codebooks": 4,
    "codebook_size": 256, "codebook_dim": 8, "sampling_rate": RATE_HZ, "hop_length": HOP,
}  # fmt: skip
LOUDER = 5.0
"""Weights as they are drawn give one code for every sound."""


def write_codec(songs: Path, out: Path) -> None:
    """A random DAC whose codes differ with the sound, and how many of them the songs use."""
    from transformers import DacConfig, DacModel

    from data_prep.codec.registry import load_codec
    from data_prep.codec.resolve import resolve_codec
    from data_prep.decode import stream

    torch.manual_seed(0)
    model = DacModel(DacConfig(**SIZES)).eval()
    for name, tensor in model.named_parameters():
        if tensor.dim() > 1 and name.endswith("weight"):
            tensor.data.mul_(LOUDER)
    model.save_pretrained(out)
    codec, used = load_codec(resolve_codec(str(out))), [set() for _ in range(4)]
    for path in sorted(path for path in songs.iterdir() if path.suffix in (".ogg", ".wav", ".flac"))[:3]:
        audio = np.concatenate(list(stream(path, sample_rate_hz=RATE_HZ, channels=1)), axis=1)[:, : 10 * RATE_HZ]
        for level, codes in zip(used, codec.encode([torch.from_numpy(audio)])[0], strict=True):
            level |= set(codes.tolist())
    print(f"codes in use: {[len(level) for level in used]} of {codec.card}")


def settings(steps: int) -> TrainSettings:
    """As for the patterns, in the base's own."""
    return settings_of("delay", steps).model_copy(update={"pattern": None})


def moved(data: Path, out: Path, steps: int) -> dict:
    """An adapter on the starter, with tables and heads of the new codes."""
    begun = time.process_time()
    train(data, out / "run", settings(steps))
    last = {line["kind"]: line for line in read_log(out / "run" / "log.jsonl")}
    return {"before": last["base"]["codebooks"], "after": last["eval"]["codebooks"], "sec": time.process_time() - begun}


def fresh(data: Path, steps: int, lr: float) -> dict:
    """An LM of the same description with random weights, all of which learn from the very same draws."""
    dataset, how = PreparedDataset(data), settings(steps)
    files = resolve_base("starter").moved(move_of_info(dataset.info))
    torch.manual_seed(0)
    lm = family_named(files.spec.family).from_spec(files.spec)
    lm.requires_grad_(True)
    most = round(how.max_clip_sec * files.spec.frame_rate)
    stream = Stream(clips_of(dataset, "train"), seed=how.seed, max_frames=most, condition_dropout=how.condition_dropout)
    validation = held_out(clips_of(dataset, "validation"), max_clips=how.eval.max_clips, max_frames=most)
    optimizer = torch.optim.AdamW(lm.parameters(), lr=lr, betas=how.optim.betas, weight_decay=0.01)
    begun, before = time.process_time(), _losses(lm, dataset, validation)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * factor(step, steps, how.optim)
        sums, counts = _sums(lm, dataset, stream.step(step, how.batch_size))
        optimizer.zero_grad()
        (sums.sum() / counts.sum()).backward()
        torch.nn.utils.clip_grad_norm_(lm.parameters(), how.optim.max_grad_norm)
        optimizer.step()
    return {"before": before, "after": _losses(lm, dataset, validation), "sec": time.process_time() - begun, "lr": lr}


def _sums(lm: LM, dataset: PreparedDataset, draws: list[Draw]) -> tuple[Tensor, Tensor]:
    batch = collate(draws, dataset, lm.spec)
    inputs, labels = lm.inputs_and_labels(batch.codes, batch.n_frames)
    conditions: Conditions = batch.conditions
    return codebook_sums(lm(inputs, conditions), labels), codebook_counts(labels)


@torch.no_grad()
def _losses(lm: LM, dataset: PreparedDataset, draws: list[Draw]) -> list[float]:
    found = [_sums(lm, dataset, [draw]) for draw in draws]
    return (sum(s for s, _ in found) / sum(c for _, c in found)).tolist()  # pyright: ignore[reportAttributeAccessIssue]


def main() -> None:
    """Do what was asked for; results are kept as JSON beside the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["codec", "moved", "fresh"])
    parser.add_argument("source", type=Path, help="Songs, or a dataset.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=60, help="Of training the LM (60).")
    parser.add_argument("--lr", type=float, default=2e-3, help="Of the LM that starts afresh (2e-3).")
    args = parser.parse_args()
    if args.what == "codec":
        write_codec(args.source, args.out)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    found = (
        moved(args.source, args.out, args.steps) if args.what == "moved" else fresh(args.source, args.steps, args.lr)
    )
    (args.out / f"{args.what}.json").write_text(json.dumps(found))
    each = " ".join(f"{value:.3f}" for value in found["after"])
    before, after = (sum(found[name]) / len(found[name]) for name in ("before", "after"))
    print(f"{args.what}: {before:.3f} before, {after:.3f} after ({each}), {found['sec']:.0f} s")


if __name__ == "__main__":
    main()
