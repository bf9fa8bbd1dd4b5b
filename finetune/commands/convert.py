"""`woodshed convert`: adapters and tuned models in the formats of other tools, both ways."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from configs.errors import UserError
from data_prep.safe_write import check_new
from data_prep.typed_paths import is_there
from finetune.commands.merge import parse_spec

SECTION = None
EXAMPLES = """
woodshed convert runs/mine/adapter --to audiocraft --out mine_audiocraft/       # merged; loads in audiocraft
woodshed convert runs/mine/adapter --to kohya --out mine.safetensors            # one file, sd-scripts' names
woodshed convert tuned_model/ --to peft --rank 32 --base facebook/musicgen-small --out extracted/
woodshed convert state_dict.safetensors --to transformers --base facebook/musicgen-small --out model/
woodshed convert somebodys_peft_adapter/ --to peft --base facebook/musicgen-small --out described/
"""


def arguments(parser: Any) -> None:
    """What, to what, where to."""
    parser.add_argument("source", help="An adapter (or ADAPTER@STRENGTH), a transformers folder, or a state dict.")
    parser.add_argument(
        "--to", required=True, choices=["peft", "transformers", "audiocraft", "kohya"], help="The format."
    )
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="A new folder; for kohya a new file.")
    parser.add_argument(
        "--base", metavar="ID", help="The base: a hub id or folder. Left out: the one the adapter names."
    )
    parser.add_argument("--rank", type=int, metavar="N", help="Of an adapter made from a tuned model (what it needs).")
    parser.add_argument(
        "--energy", type=float, metavar="X", help="Instead: the lowest ranks that keep this share, 0.99."
    )
    parser.add_argument("--leave-out", action="store_true", help="Go on where a tuned model also changed norms.")
    parser.add_argument(
        "--dtype", choices=["base", "fp32", "bf16", "fp16"], default="base", help="Of merged weights (the base's)."
    )
    parser.add_argument("--name", metavar="NAME", help="What to call an adapter that is written.")
    parser.add_argument("--force", action="store_true", help="Go on although fingerprints say it is another base.")


def run(args: Namespace, settings: None) -> int:
    """Convert, and say what was lost."""
    source, strength = parse_spec(args.source)
    if not is_there(source):
        raise UserError(f"{source} does not exist.", fix="Give an adapter folder, a model folder, or a state dict.")
    check_new(args.out, "file" if args.to == "kohya" else "folder")
    from rich.console import Console

    from adapters.convert.read import Cut
    from adapters.convert.run import convert
    from data_prep.base_files import resolve_base
    from finetune.terminal import forced_lines, harmless

    error, forced = convert(
        source,
        args.to,
        args.out,
        base=resolve_base(args.base) if args.base else None,
        strength=strength,
        cut=Cut(args.rank, args.energy, args.leave_out),
        dtype=args.dtype,
        name=args.name,
        force=args.force,
    )
    console = Console(highlight=False)
    for line in forced_lines(forced):
        console.print(line, soft_wrap=True)
    console.print(f"{args.to}: {harmless(str(args.out))}", soft_wrap=True)
    console.print(f"lost: {error:.2%} of ΔW's norm" if error > 1e-5 else "exact: nothing is lost")
    return 0
