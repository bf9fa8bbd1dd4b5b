"""`woodshed pull`: an adapter from the hub, checked before it is there."""

from argparse import Namespace
from pathlib import Path
from typing import Any

SECTION = None
EXAMPLES = """
woodshed pull ada/blues-lora                        # into blues-lora/
woodshed pull ada/blues-lora blues/ --revision v2   # again after a break: goes on where it stopped
"""


def arguments(parser: Any) -> None:
    """From where, to where."""
    parser.add_argument("repo", help="owner/name on the hub.")
    parser.add_argument("out", nargs="?", type=Path, help="A new folder (the name on the hub).")
    parser.add_argument("--revision", help="A commit, tag or branch.")


def run(args: Namespace, settings: None) -> int:
    """Fetch, check, and say what came."""
    from data_prep.safe_write import check_new

    out = args.out or Path(args.repo.rpartition("/")[2])
    check_new(out)
    from rich.console import Console
    from rich.progress import Progress

    from adapters.hub import pull
    from finetune.terminal import harmless

    console = Console(highlight=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def progress(name: str, there: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=there)

        adapter = pull(args.repo, out, revision=args.revision, progress=progress)
    base = f", for {adapter.base_id}" if adapter.base_id else ""
    console.print(harmless(f"{out}: {adapter.label}{base}"), soft_wrap=True)
    console.print(f"next: woodshed inspect {harmless(str(out))}", soft_wrap=True)
    return 0
