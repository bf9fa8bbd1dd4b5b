"""`woodshed train DATA RUN`: teach a base model to play like a prepared dataset."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from configs.train import TrainSettings

EXAMPLES = """
woodshed train data/mine runs/mine                            # the base that the dataset was prepared for
woodshed train data/mine runs/mine --preset 8gb
woodshed train data/mine runs/mine --lora.rank 32 --epochs 8 --preview.prompts "solo piano, in the style of mine"
woodshed train data/mine runs/flat --pattern flattening       # move the base to another codebook pattern
woodshed train data/mine runs/mine --resume                   # go on after Ctrl-C, a crash or a power cut
woodshed train data/mine runs/mine --resume --epochs 8        # or for longer than first planned
woodshed train data/try runs/try --preset cpu-debug           # a tiny base, in seconds
accelerate launch --num_processes 2 -m finetune.cli train data/mine runs/mine     # two GPUs
"""
SECTION = "train"
ALIASES = {"rank": "lora.rank", "lr": "optim.lr"}


def arguments(parser: Any) -> None:
    """Positionals and flags of its own."""
    parser.add_argument("data", type=Path, help="A folder that `woodshed prep` made.")
    parser.add_argument("run", type=Path, help="Where the run goes: a new folder, or one to resume.")
    parser.add_argument(
        "--resume", action="store_true", help="Go on with the run in this folder from its last checkpoint."
    )


def run(args: argparse.Namespace, settings: "TrainSettings") -> int:
    """Train; 130 or 143 when stopped by a signal."""
    import sys

    from data_prep.prepared import read_info

    read_info(args.data)  # before torch is imported
    from data_prep.progress import quiet_libraries

    quiet_libraries()
    from finetune.stop import Stopped
    from finetune.train import train

    try:
        train(args.data, args.run, settings, resume=args.resume)
    except Stopped as stopped:
        command = shlex.join(["woodshed", "train", str(args.data), str(args.run), "--resume"])
        print(f"\nStopped and saved. Go on with: {command}", file=sys.stderr)
        return stopped.code
    return 0
