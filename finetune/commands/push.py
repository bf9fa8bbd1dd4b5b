"""`woodshed push`: an adapter to the hub. Lists what would go, and sends nothing else."""

from argparse import Namespace
from pathlib import Path
from typing import Any

SECTION = None
EXAMPLES = """
woodshed push runs/mine/adapter ada/blues-lora              # shows what would be uploaded, sends nothing
woodshed push runs/mine/adapter ada/blues-lora --yes        # uploads it, to a private repository
woodshed push runs/mine/adapter ada/blues-lora --yes --public
"""


def arguments(parser: Any) -> None:
    """What, where to, and the word that makes it so."""
    parser.add_argument("adapter", type=Path, help="The adapter's folder.")
    parser.add_argument("repo", help="Where to: owner/name on the hub.")
    parser.add_argument("--yes", action="store_true", help="Upload. Without it, only show what would be uploaded.")
    parser.add_argument("--public", action="store_true", help="Make a new repository public (private).")


def run(args: Namespace, settings: None) -> int:
    """Check, list, and upload only when told to."""
    from adapters.adapter_folder import find_weights

    find_weights(args.adapter)  # before torch is imported
    from rich.console import Console

    from adapters.hub import plan_push, push
    from adapters.shareable import size_text
    from finetune.terminal import harmless

    console = Console(highlight=False)
    files = plan_push(args.adapter)
    for file in files:
        console.print(f"  {size_text(file.n_bytes):>9}  {harmless(file.name)}", soft_wrap=True)
    total = size_text(sum(file.n_bytes for file in files))
    whose = "public" if args.public else "private"
    where = harmless(args.repo)
    console.print(f"{len(files)} files, {total}, to {where} ({whose} if it is new); nothing else", soft_wrap=True)
    if not args.yes:
        console.print("nothing was sent: add --yes to upload exactly this")
        return 0
    console.print(f"uploaded: {harmless(push(files, args.repo, private=not args.public))}", soft_wrap=True)
    return 0
