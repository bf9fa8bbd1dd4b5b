"""`woodshed bundle`: an adapter as one file for a friend, and back."""

import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

SECTION = None
EXAMPLES = """
woodshed bundle runs/mine/adapter mine.zip        # one file to send
woodshed bundle --open mine.zip mine/             # checked, then unpacked
"""


def arguments(parser: Any) -> None:
    """From, to, and which way."""
    parser.add_argument("source", type=Path, help="An adapter's folder; with --open, a bundle.")
    parser.add_argument("out", type=Path, help="The bundle to write; with --open, the adapter's new folder.")
    parser.add_argument("--open", action="store_true", help="Unpack a bundle instead.")


def run(args: Namespace, settings: None) -> int:
    """Pack or unpack, and say what is in it."""
    from adapters.adapter_folder import find_weights
    from configs.errors import UserError
    from data_prep.safe_write import check_new
    from data_prep.typed_paths import is_file

    check_new(args.out, "folder" if args.open else "file")
    if not args.open:
        if is_file(args.source):
            command = shlex.join(["woodshed", "bundle", "--open", str(args.source), str(args.out)])
            fix = f"To unpack it: {command}"
            raise UserError("This is a file; an adapter is a folder.", where=str(args.source), fix=fix)
        find_weights(args.source)  # before torch is imported
    from rich.console import Console

    from adapters.bundle import pack, unpack
    from adapters.shareable import size_text
    from finetune.terminal import harmless

    console = Console(highlight=False)
    if args.open:
        adapter = unpack(args.source, args.out)
        trigger = adapter.woodshed.trigger if adapter.woodshed else ""
        base = f", for {adapter.base_id}" if adapter.base_id else ""
        console.print(harmless(f"{args.out}: {adapter.label}{base}"), soft_wrap=True)
        if trigger:
            console.print(harmless(f"trigger: {trigger}"), soft_wrap=True)
        console.print(f"next: woodshed inspect {harmless(str(args.out))}", soft_wrap=True)
        return 0
    for file in pack(args.source, args.out):
        console.print(f"  {size_text(file.n_bytes):>9}  {harmless(file.name)}", soft_wrap=True)
    console.print(f"{harmless(str(args.out))}: {size_text(args.out.stat().st_size)}", soft_wrap=True)
    return 0
