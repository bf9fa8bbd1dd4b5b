"""What fp16, bf16, int8 and nf4 add to the loss of a base on held-out clips, against fp32; each has a gate to pass.

    python -m benchmarks.precision data/prepared --base facebook/musicgen-small
    python -m benchmarks.precision data/prepared --base debug --clips 4 --seconds 5

Clips are the prepared dataset's validation clips, heard with their first caption. The exit code is 1 when an
arithmetic that this machine has fails its gate. fp16, bf16 and int8 are the engine's own (on a CPU); bnb-int8 and nf4
are bitsandbytes' layers, which training on a small card uses and previews play through.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from adapters.decode.arithmetic import choose
from adapters.decode.engine import Engine, Packing
from adapters.decode.gate import GateClip, added, losses
from adapters.family.load import load_lm
from adapters.family.port import family_of
from benchmarks.measure import print_environment
from configs.errors import UserError
from data_prep.base_files import BaseFiles, resolve_base
from data_prep.device import pick_device
from data_prep.prepared import PreparedDataset
from finetune.dataset_fit import check_fit


def held_out(dataset: PreparedDataset, n_clips: int, n_frames: int) -> list[GateClip]:
    """The first validation clips, each from its beginning.

    Raises:
        UserError: the dataset has no validation clips.
    """
    rows = dataset.clips("validation")[:n_clips]
    if not rows:
        raise UserError("the dataset has no validation clips", where=str(dataset.folder), fix="prepare more songs")
    return [
        (
            torch.tensor(dataset.codes(row.id)[:, :n_frames], dtype=torch.long),
            torch.tensor(dataset.text_state(row.captions[0])),
        )
        for row in rows
    ]


def arithmetics(files: BaseFiles, device: torch.device) -> Iterator[tuple[str, Engine]]:
    """Every arithmetic of this machine with the base's weights in it, one at a time."""
    family = family_of(files)
    for name in ("fp16", "bf16", "int8"):
        try:
            chosen = choose(name, device)
        except UserError as error:
            print(f"{name:<10}not here: {error.what}")
            continue
        yield name, family.pack(load_lm(files), Packing(chosen.kind, device, chosen.dtype))
    yield "bnb-int8", family.borrow(load_lm(files, weights="int8", device=device))
    yield "nf4", family.borrow(load_lm(files, weights="nf4", device=device))


def run_gates(files: BaseFiles, clips: Sequence[GateClip], device: torch.device) -> bool:
    """Print a line per arithmetic; whether all of them pass."""
    exact = losses(family_of(files).pack(load_lm(files), Packing("plain", device, torch.float32)), clips)
    print(f"{'fp32':<10}loss {float(exact.mean()):.4f} over {exact.numel()} codes of {len(clips)} held-out clips")
    passed = True
    for name, engine in arithmetics(files, device):
        found = added(name, exact, losses(engine, clips))
        print(found, flush=True)
        passed = passed and found.passes
    return passed


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dataset", type=Path, help="a folder that woodshed prep has written")
    parser.add_argument("--base", required=True)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    args = parser.parse_args(argv)
    files, dataset = resolve_base(args.base), PreparedDataset(args.dataset)
    check_fit(dataset, files)
    clips = held_out(dataset, args.clips, max(1, round(args.seconds * files.spec.frame_rate)))
    print_environment()
    return 0 if run_gates(files, clips, pick_device(args.device)) else 1


if __name__ == "__main__":
    sys.exit(main())
