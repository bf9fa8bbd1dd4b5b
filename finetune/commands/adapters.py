"""`woodshed adapters`: which adapters are on this machine, what they are, and where they fit."""

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.registry import Listed

SECTION = None
EXAMPLES = """
woodshed adapters                                    # below runs/, and in the hub's cache
woodshed adapters runs/ downloads/ --fits facebook/musicgen-small
woodshed adapters --json
"""


def arguments(parser: Any) -> None:
    """Where to look, what to compare with, how to tell."""
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="Where to look (runs/ and the hub's cache)."
    )
    parser.add_argument("--fits", metavar="BASE", help="Say which of them belong to this base: a hub id or a folder.")
    parser.add_argument("--json", action="store_true", help="As JSON, for programs.")


def run(args: Namespace, settings: None) -> int:
    """List them."""
    from adapters.registry import hub_cache, list_adapters
    from data_prep.base_files import resolve_base

    folders = args.folders or [Path("runs"), hub_cache()]
    found = list_adapters(folders, resolve_base(args.fits) if args.fits else None)
    if args.json:
        print(json.dumps([listed.as_json() for listed in found], indent=2, ensure_ascii=True))
    elif found:
        show(found, fits=bool(args.fits))
    else:
        print(f"no adapters in {', '.join(map(str, folders))}")
    return 0


def show(found: "list[Listed]", *, fits: bool) -> None:
    """A table; broken ones below it, with the reason."""
    from rich.console import Console
    from rich.table import Table

    from adapters.shareable import size_text
    from finetune.terminal import harmless

    console = Console(highlight=False)
    table = Table("name", "base", "trigger", "rank", "size", "held-out loss", *(["fits"] if fits else []))
    table.add_column("folder", overflow="fold")
    sound = [listed for listed in found if not listed.problem]
    for listed in sound:
        ranks = "–".join(dict.fromkeys(str(rank) for rank in (listed.ranks[0], listed.ranks[-1])))
        loss = f"{listed.loss[0]:.3f} → {listed.loss[1]:.3f}" if listed.loss else ""
        texts = [listed.name, listed.base, listed.trigger, ranks, size_text(listed.n_bytes), loss]
        texts += [("yes" if listed.fits else f"no: {listed.misfit}")] if fits else []
        table.add_row(*map(harmless, (*texts, str(listed.path))))
    if sound:
        console.print(table)
    for listed in found:
        if listed.problem:
            console.print(f"[yellow]broken:[/] {harmless(f'{listed.path}: {listed.problem}')}", soft_wrap=True)
