"""`woodshed codec`: what a codec keeps of one's songs, and a decoder that learns them."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError

if TYPE_CHECKING:
    from finetune.codec_report.page import Report

SECTION = None
EXAMPLES = """
woodshed codec report my_songs/ --codec starter                                  # what the starter's codec keeps
woodshed codec report my_songs/ --codec facebook/musicgen-small --codec descript/dac_44khz --out codecs/
woodshed codec report my_songs/ --codec models/encodec-32k --passages 60 --seconds 10
"""


def arguments(parser: Any) -> None:
    """What to do, with what, and flags."""
    parser.add_argument("action", choices=["report"], help="report: compare codecs on your songs.")
    parser.add_argument("songs", type=Path, help="A folder of songs. Only read.")
    parser.add_argument(
        "--codec", action="append", default=[], metavar="CODEC",
        help="A base, whose own codec is meant, or a codec's folder or hub id. Repeat it to compare.",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="The folder to write to (default: codec-report).")
    parser.add_argument("--passages", type=int, default=24, help="Passages to measure, spread over all songs (24).")
    parser.add_argument("--seconds", type=float, default=10.0, help="Length of a passage (10).")
    parser.add_argument("--players", type=int, default=4, help="Passages to listen to on the page, worst first (4).")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="Where codecs run (auto).")


def run(args: Namespace, settings: None) -> int:
    """Measure, print the table, and say where to listen."""
    from data_prep.progress import quiet_libraries
    from finetune.codec_report.run import PAGE, make_report

    if args.passages < 1 or args.seconds < 1 or args.players < 0:
        raise UserError("--passages and --seconds must be at least 1, --players at least 0.")
    quiet_libraries()
    out = args.out or Path("codec-report")
    report = make_report(
        args.songs,
        args.codec or ["starter"],
        out,
        seconds=args.seconds,
        at_most=args.passages,
        n_players=args.players,
        device=args.device,
    )
    _print(report)
    print(f"\nLook and listen: open {out / PAGE} in a browser")
    return 0


def _print(report: "Report") -> None:
    from rich.console import Console
    from rich.table import Table

    from finetune.terminal import harmless

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("codec", "bits spent", "kbps", "smaller", "mel", "STFT", "SI-SDR dB", "ViSQOL", "efficiency"):
        table.add_column(heading, justify="left" if heading in ("codec", "bits spent") else "right")
    for result in report.results:
        for number, level in enumerate(result.levels):
            mean, efficiency = level.mean, level.bitrate_efficiency
            table.add_row(
                harmless(result.name) if number == 0 else "",
                level.name,
                f"{level.bitrate_bps / 1000:.3g}",
                f"{level.compression:.0f} ×",
                f"{mean.mel_distance:.3f}",
                f"{mean.stft_distance:.3f}",
                f"{mean.si_sdr_db:.2f}",
                "–" if mean.visqol is None else f"{mean.visqol:.2f}",
                "" if efficiency is None else f"{efficiency:.0%}",
            )
    console = Console(highlight=False)
    console.print(table)
    if not report.has_visqol:
        console.print("ViSQOL is left out: `pip install visqol-python` brings it.")
