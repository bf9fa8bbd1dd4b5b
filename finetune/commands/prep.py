"""`woodshed prep`: a folder of songs → a prepared dataset."""

import shlex
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.prep import PrepSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data_prep.prepare import Summary
    from data_prep.prepared import ClipRow

SECTION = "prep"
ALIASES = {"trigger": "captions.trigger", "stems": "stems.use", "text-encoder": "text_encoder"}
EXAMPLES = """
woodshed prep my_songs/ data/mine --trigger "in the style of mine"
woodshed prep my_songs/ data/band --stems instrumental --base facebook/musicgen-stereo-small
woodshed prep my_songs/ data/drums --stems drums,drums+bass --segment.max_sec 15
woodshed prep my_songs/ data/along --pair "drums|rest"     # learn drums that play along with everything else
woodshed prep my_songs/ data/clap --text-encoder laion/larger_clap_music   # prompts read by another encoder
woodshed prep my_songs/ data/dac --codec descript/dac_44khz  # another codec: the adapter learns its codes
woodshed prep my_songs/ data/try --base debug     # seconds, no download: to see what comes out
"""


def arguments(parser: Any) -> None:
    """What comes before the flags."""
    parser.add_argument("songs", type=Path, help="A folder of recordings, in any format and depth. Only read.")
    parser.add_argument("out", type=Path, help="The dataset's folder: a new one, or one to continue or change.")


def run(args: Namespace, settings: PrepSettings) -> int:
    """Prepare, then say what there is and what comes next."""
    from data_prep.folders import check_folders
    from data_prep.scan import check_folder

    check_folder(args.songs)  # before anything heavy is imported
    check_folders(args.songs, args.out)
    try:
        from data_prep.prepare import prepare
        from data_prep.progress import quiet_libraries

        quiet_libraries()
        show(prepare(args.songs, args.out, settings), settings)
    except KeyboardInterrupt as stop:
        print("\nStopped. What is finished is kept: the same command goes on from here.", file=sys.stderr)
        return getattr(stop, "code", 130)
    return 0


def show(summary: "Summary", settings: PrepSettings) -> None:
    """The result as a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from data_prep.report_words import left_out, own_words, warnings
    from data_prep.scan import by_kind
    from finetune.terminal import harmless

    rows = summary.rows
    minutes = sum(row.duration_sec for row in rows) / 60
    size_mib, cache_mib = (_mib(summary.out, cache=cache) for cache in (False, True))
    facts = {
        "tracks": str(len({row.source for row in rows})),
        "clips": f"{len(rows)}, {minutes:.1f} minutes{held_out_words(rows, settings.validation_fraction)}",
        "captions": str(len({caption for row in rows for caption in row.captions})),
        **{kind: _condition_words(count, len(rows)) for kind, count in summary.conditions.items()},
        "your words": harmless(own_words(summary.songs)),
        **({"edited": _edits_words(summary)} if summary.edits.captions else {}),
        "left out": f"{left_out(summary.rejected)} (see rejected.jsonl)" if summary.rejected else "nothing",
        **({"passed over": harmless(by_kind(summary.found.passed_over))} if summary.found.passed_over else {}),
        "size": f"{size_mib:.1f} MiB, and {cache_mib:.1f} MiB in .cache that can be deleted",
        "time": f"{summary.seconds:.1f} s" + (", nothing had changed" if summary.unchanged else ""),
        "report": str(summary.out / "report.html"),
    }
    table = Table(show_header=False, box=None)
    for name, fact in facts.items():
        table.add_row(f"[bold]{name}[/]", escape(fact))
    console = Console(highlight=False)
    console.print(table)
    for line in warnings(summary.found, summary.songs, summary.too_short):
        console.print(f"[bold yellow]warning:[/] {escape(harmless(line))}", soft_wrap=True)
    console.print(f"next: {escape(_next_command(summary, settings))}", soft_wrap=True)


def _edits_words(summary: "Summary") -> str:
    """Of how many clips a person wrote the captions, and in which run."""
    count = sum(row.id in summary.edits.captions for row in summary.rows)
    said = f"captions of {count} clips are yours"
    if summary.edits.kept:
        said += ", kept from the last run's table; --captions.edits FILE takes another, --captions.edits null none"
    return said


def _condition_words(with_one: int, n_clips: int) -> str:
    """How many clips have a melody, say."""
    without = n_clips - with_one
    return f"of {with_one} clips" + (f"; {without} are silent there or have no pitch" if without else "")


def held_out_words(rows: "Sequence[ClipRow]", asked: float) -> str:
    """How much is held out, and why it is more or less than was asked for."""
    held = [row for row in rows if row.split == "validation"]
    if not held:
        return ", none held out for validation"
    minutes = sum(row.duration_sec for row in held) / 60
    share = minutes * 60 / sum(row.duration_sec for row in rows)
    n_tracks = len({row.source for row in held})
    why = "" if abs(share - asked) < 0.02 else f", where {asked:.0%} was asked for"
    tracks = "1 whole track" if n_tracks == 1 else f"{n_tracks} whole tracks"
    return f", of these {minutes:.1f} held out for validation ({share:.0%}: {tracks}, never parts of one{why})"


def _next_command(summary: "Summary", settings: PrepSettings) -> str:
    words = ["woodshed", "train", str(summary.out), f"runs/{summary.out.resolve().name}"]
    if settings.base != PrepSettings().base:
        words += ["--base", settings.base]
    return shlex.join(words)


def _mib(out: Path, *, cache: bool) -> float:
    """MiB of the dataset or of its cache; a file that both share counts as the dataset's."""
    own, seen = 0, set()
    for path in sorted(out.rglob("*"), key=lambda path: ".cache" in path.parts):
        status = path.stat()
        if not path.is_file() or (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        own += status.st_size if (".cache" in path.relative_to(out).parts) == cache else 0
    return own / 2**20
