"""`woodshed doctor`: a table of what this machine has, with a fix beside each failure."""

import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

EXAMPLES = """
woodshed doctor
woodshed doctor --offline        # the only network access, one request to the model hub, is left out
"""
SECTION = None


def arguments(parser: Any) -> None:
    """Flags of its own."""
    parser.add_argument("--offline", action="store_true", help="Do not ask whether the model hub answers.")


def run(args: argparse.Namespace, settings: None) -> int:
    """Print the table; 1 when something is broken."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "check", title="woodshed doctor", title_justify="left")
    table.add_column("found", overflow="fold")
    table.add_column("fix", overflow="fold")
    signs = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "broken": "[bold red]broken[/]"}
    broken = 0
    console = Console()
    with console.status("looking …"):
        for check in checks(offline=args.offline):
            table.add_row(signs[check.status], check.name, escape(check.found), escape(check.fix))
            broken += check.status == "broken"
    console.print(table)
    console.print(f"{broken} broken" if broken else "Nothing is broken.", style="bold")
    return 1 if broken else 0


def checks(*, offline: bool) -> Iterator[Any]:
    """Every check, the torch pair first: where it is broken, most of the rest cannot be imported."""
    from finetune.doctor.audio import check_decoding
    from finetune.doctor.hardware import check_bf16, check_cuda, check_disk, check_gpu_memory
    from finetune.doctor.hub import cache_folder, check_hub
    from finetune.doctor.probes import probe
    from finetune.doctor.software import check_bitsandbytes, check_python, check_torch_pair

    yield check_python()
    with ThreadPoolExecutor() as at_once:
        torch, torchaudio, bitsandbytes = at_once.map(probe, ("torch", "torchaudio", "bitsandbytes"))
    yield check_torch_pair(torch, torchaudio)
    yield check_cuda(torch)
    yield check_bf16(torch)
    yield check_gpu_memory(torch)
    yield check_bitsandbytes(bitsandbytes)
    yield check_decoding()
    yield check_hub(offline=offline)
    yield check_disk("Disk, working folder", Path.cwd())
    yield check_disk("Disk, model cache", cache_folder())
