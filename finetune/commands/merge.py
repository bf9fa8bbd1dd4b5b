"""`woodshed merge`: adapters merged into their base, as a folder that transformers loads."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from data_prep.typed_paths import is_there

if TYPE_CHECKING:
    from adapters.adapter_files import Adapter
    from data_prep.base_files import BaseFiles

SECTION = None
EXAMPLES = """
woodshed merge runs/mine/adapter merged/
woodshed merge runs/mine/adapter@0.8 merged/ --dtype fp16
woodshed merge runs/mine/adapter@0.7 runs/yours/adapter@0.4 merged/
woodshed merge runs/mine/adapter merged/ --base models/musicgen-small     # a base folder of your own
python -c "from transformers import pipeline; print(pipeline('text-to-audio', 'merged/')('slow ballad, piano'))"
"""


def arguments(parser: Any) -> None:
    """Adapters, folder and flags."""
    parser.add_argument(
        "adapters", nargs="+", metavar="ADAPTER[@STRENGTH]", help="Adapter folders; strength 1 if left out."
    )
    parser.add_argument("out", type=Path, help="The merged model's folder; it must not exist yet.")
    parser.add_argument("--base", help="The base: a hub id or folder. Left out: the one the first adapter names.")
    parser.add_argument(
        "--dtype",
        choices=["base", "fp32", "bf16", "fp16"],
        default="base",
        help="Of the weights written (default: the base's).",
    )
    parser.add_argument("--decoder", type=Path, help="A decoder.safetensors of `woodshed codec tune` for this base.")
    parser.add_argument("--force", action="store_true", help="Merge although fingerprints say it is another base.")


def run(args: Namespace, settings: None) -> int:
    """Read, check, merge, and say what comes next."""
    from adapters.adapter_folder import find_weights
    from data_prep.safe_write import check_new

    check_new(args.out)
    for folder, _ in map(parse_spec, args.adapters):
        find_weights(folder)  # before torch is imported
    from rich.console import Console

    from adapters.adapter_files import load
    from adapters.merge import merge
    from finetune.terminal import forced_lines, harmless

    console = Console(highlight=False)
    chosen = [(load(folder, force=args.force), strength) for folder, strength in map(parse_spec, args.adapters)]
    files = base_of(chosen[0][0], args.base)
    notes = merge(files, chosen, args.out, dtype=args.dtype, force=args.force, decoder=args.decoder)
    for line in forced_lines(notes):
        console.print(line, soft_wrap=True)
    console.print(
        f"{harmless(files.id)} with {len(chosen)} adapter{'s' if len(chosen) > 1 else ''} merged into it: "
        f"{harmless(str(args.out))}",
        soft_wrap=True,
    )
    console.print(
        f'[dim]next:[/] woodshed sample --base {harmless(str(args.out))} "slow ballad, piano"', soft_wrap=True
    )
    return 0


def parse_spec(text: str) -> tuple[Path, float]:
    """`folder@0.8` as a folder and a strength; without a number, 1. A folder whose own name has an @ comes first.

    Raises:
        UserError: what follows the @ is no number.
    """
    folder, found, strength = text.rpartition("@")
    if not found or is_there(text):
        return Path(text), 1.0
    try:
        value = float(strength)
    except ValueError:
        value = float("nan")
    if not abs(value) <= 100:
        raise UserError(f"{strength!r} is no strength.", where=text, fix="Write a number after the @, such as @0.8.")
    return Path(folder), value


def base_of(adapter: "Adapter", chosen: str | None) -> "BaseFiles":
    """The base that was named, else the one that the adapter was made for.

    Raises:
        UserError: neither is there.
    """
    from data_prep.base_files import resolve_base
    from finetune.base_place import base_of_adapter

    if chosen is not None:
        return resolve_base(chosen)
    base_id, revision = base_of_adapter(adapter)
    try:
        return resolve_base(base_id, revision)
    except UserError as error:
        fix = f"Give the base it was made for as --base. {error.fix}"
        raise UserError(error.what, where=error.where, fix=fix) from error
