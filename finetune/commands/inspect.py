"""`woodshed inspect`: everything an adapter says of itself, and what its numbers show.

All texts come from a stranger's file: markup and control characters are shown, never obeyed.
"""

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

SECTION = None
EXAMPLES = """
woodshed inspect runs/mine/adapter
woodshed inspect runs/mine/adapter --base facebook/musicgen-small     # does it belong to this base?
woodshed inspect runs/mine/adapter --json | jq .stated.held_out
"""


def arguments(parser: Any) -> None:
    """The adapter and two flags."""
    parser.add_argument("adapter", type=Path, help="An adapter folder. Only read; nothing in it is ever run.")
    parser.add_argument("--base", help="Also say whether it fits this base: a hub id or folder.")
    parser.add_argument("--json", action="store_true", help="Print JSON instead of tables.")


def run(args: Namespace, settings: None) -> int:
    """Check, describe, print. Exit code 1 when it does not fit the base."""
    from adapters.adapter_folder import find_weights

    find_weights(args.adapter)  # before torch is imported
    from adapters.adapter_files import load
    from adapters.describe import describe

    adapter = load(args.adapter, force=True)
    facts = describe(adapter)
    differences = None
    if args.base is not None:
        from adapters.fit import differences_in_shape, differences_in_weights
        from data_prep.base_files import resolve_base

        files = resolve_base(args.base)
        differences = [*differences_in_weights(adapter, files), *differences_in_shape(adapter.updates, files)]
        facts["differences"] = differences
    if args.json:
        print(json.dumps(facts, indent=2, ensure_ascii=True))
    else:
        _print_tables(facts, args.base)
    return 1 if differences else 0


def _print_tables(facts: Mapping[str, Any], base: str | None) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    _print_pairs(console, facts["label"], summary(facts))
    _print_groups(console, facts)
    if facts["stated"]:
        _print_pairs(console, "What it says of itself (woodshed.json)", leaves(facts["stated"]))
    else:
        console.print("No woodshed.json: it was made elsewhere and says no more of itself.")
    if base is not None:
        _print_fit(console, base, facts["differences"])


def summary(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The most asked-for facts, first."""
    size, method = facts["size"], facts["method"]
    revision = facts["base"]["revision"]
    yield "base", (facts["base"]["id"] or "not named") + (f" at {revision}" if revision else "")
    yield "method", f"{method['kind']}, rank {_list(method['ranks'])}, alpha {_list(method['alphas'])}"
    yield "size", f"{size['modules']} modules, {size['numbers']:,} numbers, {size['bytes'] / 2**20:.1f} MiB"
    yield "stored as", _list(method["dtypes"])
    for one in facts["follows"]:
        pair = f" ({one['pair']})" if one["pair"] else ""
        ahead = f"{one['lookahead_frames']} frames ahead"
        if one["stride_frames"]:
            ahead += f", as a prefix with an entry for {one['stride_frames']} frames"
        yield "follows", f"{one['kind']}{pair}, {ahead}: {one['numbers']:,} numbers, ‖out‖ {one['norm']:.4g}"


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """A nested description as dotted names and texts; long lists are cut short."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and len(value) > 4:
        yield name, f"{_list(value[:4])}, … ({len(value)} in all)"
    elif value not in (None, "", [], {}):
        yield name, _list(value) if isinstance(value, list) else str(value)


def _print_pairs(console: "Console", title: str, pairs: Iterator[tuple[str, str]]) -> None:
    from rich.table import Table

    from finetune.terminal import harmless

    table = Table(title=harmless(title), title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, text in pairs:
        table.add_row(harmless(name), harmless(text))
    console.print(table)
    console.print()


def _print_groups(console: "Console", facts: Mapping[str, Any]) -> None:
    from rich.table import Table

    table = Table(title="What it changes", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("part", "modules", "‖ΔW‖", ""):
        table.add_column(heading, justify="left" if heading in ("part", "") else "right")
    for group in facts["groups"]:
        note = f"{group['zero']} of them unchanged" if group["zero"] else ""
        table.add_row(group["kind"], str(group["modules"]), f"{group['norm']:.4g}", note)
    console.print(table)
    if facts["method"]["kind"].endswith("DoRA"):
        console.print("DoRA also rescales rows; that part depends on the base and is not in ‖ΔW‖.")
    console.print()


def _print_fit(console: "Console", base: str, differences: list[str]) -> None:
    from finetune.terminal import harmless

    if not differences:
        console.print(f"[green]fits[/] {harmless(base)}", soft_wrap=True)
        return
    console.print(f"[red]does not fit[/] {harmless(base)}:", soft_wrap=True)
    for line in differences[:20]:
        console.print(f"  {harmless(line)}", soft_wrap=True)


def _list(values: list[Any]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
