"""`woodshed captions`: what a dataset's captions say, as a table, as a file to change, and counted."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from data_prep.prepared import ClipRow

SECTION = None
EXAMPLES = """
woodshed captions data/mine                           # a table: every clip, what listeners found, its captions
woodshed captions data/mine --stats                   # what is said of every clip, and so learnt as the trigger
woodshed captions data/mine --edit mine.csv           # change it in any editor, then:
woodshed prep my_songs/ data/mine --captions.edits mine.csv
"""
_MOST_PHRASES = 40


def arguments(parser: Any) -> None:
    """The dataset, and what to do with its captions."""
    parser.add_argument("data", type=Path, help="A prepared dataset. Only read.")
    parser.add_argument("--edit", type=Path, help="Write the captions to this .csv or .jsonl, to change them.")
    parser.add_argument("--stats", action="store_true", help="Count what the captions say, and what never varies.")


def run(args: Namespace, settings: None) -> int:
    """Read the dataset, then print or write."""
    from rich.console import Console

    from data_prep.prepared import PreparedDataset

    dataset = PreparedDataset(args.data)
    console = Console(highlight=False)
    if args.edit is not None:
        _write(console, dataset, args.edit)
    if args.stats:
        _print_stats(console, dataset.clips(), dataset.trigger)
    if args.edit is None and not args.stats:
        _print_table(console, dataset.clips())
    return 0


def _write(console: "Console", dataset: Any, path: Path) -> None:
    from data_prep.caption_edits import write_edits
    from finetune.terminal import harmless

    count = write_edits(path, dataset.clips())
    console.print(f"{count} captions in {harmless(str(path))}: change the column caption, then prepare again with")
    console.print(f"  woodshed prep SONGS {harmless(str(dataset.folder))} --captions.edits {harmless(str(path))}")
    console.print("and the settings that this dataset was made with. Only the text is encoded anew.")


def _print_table(console: "Console", rows: "Sequence[ClipRow]") -> None:
    from rich.table import Table

    from data_prep.caption_edits import listener_words
    from data_prep.flag_words import remark
    from finetune.terminal import harmless

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("song", "from", "listeners", "captions"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        remarks = f" ({'; '.join(map(remark, row.flags))})" if row.flags else ""
        place = f"{row.start_sec:.0f} s" + ("" if row.stems == "mix" else f", {row.stems}")
        captions = "\n".join(map(harmless, row.captions))
        table.add_row(*map(harmless, (row.source, place, listener_words(row) + remarks)), captions)
    console.print(table)


def _print_stats(console: "Console", rows: "Sequence[ClipRow]", trigger: str) -> None:
    from rich.table import Table

    from data_prep.caption_stats import caption_stats
    from finetune.terminal import harmless

    stats = caption_stats(rows, trigger)
    console.print(
        f"{stats.clips} clips, {stats.captions} captions, {stats.distinct} different, "
        f"{stats.mean_words:.1f} words on average"
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("of clips", justify="right")
    table.add_column("said", overflow="fold")
    for phrase, share in list(stats.phrases.items())[:_MOST_PHRASES]:
        table.add_row(f"{share:.0%}", harmless(phrase))
    console.print(table)
    for line in findings(stats, trigger):
        console.print(harmless(line), soft_wrap=True)


def findings(stats: Any, trigger: str) -> list[str]:
    """What the counts mean, in sentences."""
    lines = []
    left_out = len(stats.phrases) - _MOST_PHRASES
    if left_out > 0:
        lines.append(f"and {left_out} phrases that are said less often.")
    learnt = f"the trigger {trigger!r}" if trigger else "no trigger: all of this"
    if trigger:
        whole = stats.with_trigger == stats.captions
        part = "every caption" if whole else f"{stats.with_trigger} of {stats.captions} captions"
        lines.append(f"The trigger {trigger!r} is in {part}.")
    if stats.always:
        lines.append(f"Said of every clip, and so learnt together with {learnt}: {', '.join(stats.always)}.")
    if stats.in_every_caption:
        lines.append(f"In every caption, so that no wording is without it: {', '.join(stats.in_every_caption)}.")
    if stats.constant:
        named = ", ".join(f"{name} ({value})" for name, value in stats.constant.items())
        lines.append(f"Never varies, so that a prompt will hardly change it: {named}.")
    if stats.alike:
        lines.append(f"{stats.alike} clips are described exactly as a clip of another song: nothing tells them apart.")
    if not stats.always and stats.clips > 1:
        lines.append("Nothing else is said of every clip." if trigger else "Nothing is said of every clip.")
    return lines
