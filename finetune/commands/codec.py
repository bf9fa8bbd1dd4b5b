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
woodshed codec tune my_songs/ my-decoder/ --codec starter                        # its decoder learns your sounds
woodshed codec tune my_songs/ my-decoder/ --codec starter --other more_music/    # without forgetting other music
woodshed sample --base starter --decoder my-decoder/decoder.safetensors "steel drums"
"""


def arguments(parser: Any) -> None:
    """What to do, with what, and flags."""
    parser.add_argument(
        "action",
        choices=["report", "tune"],
        help="report: compare codecs on your songs. tune: teach a codec's decoder your sounds; tokens stay.",
    )
    parser.add_argument("songs", type=Path, help="A folder of songs. Only read.")
    parser.add_argument("folder", type=Path, nargs="?", help="tune: where the decoder goes; a stopped run goes on.")
    parser.add_argument(
        "--codec", action="append", default=[], metavar="CODEC",
        help="A base, whose own codec is meant, or a codec's folder or hub id. Repeat it to compare.",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="The folder to write to (default: codec-report).")
    parser.add_argument("--passages", type=int, default=24, help="Passages to measure, spread over all songs (24).")
    parser.add_argument("--seconds", type=float, default=10.0, help="Length of a passage (10).")
    parser.add_argument("--players", type=int, default=4, help="Passages to listen to on the page, worst first (4).")
    parser.add_argument("--other", type=Path, help="tune: other music, mixed in and measured, against forgetting.")
    parser.add_argument("--other_share", type=float, default=0.25, help="tune: share of crops from it (0.25).")
    parser.add_argument(
        "--forget", type=float, default=0.02,
        help="tune: share that other music's mel distance may grow by; the decoder is drawn back that far (0.02).",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=600, help="tune: optimizer steps (600).")
    parser.add_argument("--lr", type=float, default=3e-4, help="tune: learning rate (0.0003).")
    parser.add_argument("--discriminators", action="store_true", help="tune: against STFT discriminators, too.")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="Where codecs run (auto).")


def run(args: Namespace, settings: None) -> int:
    """Do what was asked for."""
    from data_prep.progress import quiet_libraries

    quiet_libraries()
    return _tune(args) if args.action == "tune" else _report(args)


def _report(args: Namespace) -> int:
    """Measure, print the table, and say where to listen."""
    from finetune.codec_report.run import PAGE, make_report

    if args.passages < 1 or args.seconds < 1 or args.players < 0:
        raise UserError("--passages and --seconds must be at least 1, --players at least 0.")
    out = args.folder or args.out or Path("codec-report")
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


def _tune(args: Namespace) -> int:
    """Tune a decoder, and say what it learnt."""
    from data_prep.codec.registry import load_codec
    from data_prep.codec.resolve import resolve_codec
    from data_prep.codec.transformers_codec import TransformersCodec
    from data_prep.device import pick_device
    from finetune.codec_tune.tune import TuneSettings, tune
    from finetune.terminal import harmless

    shares_fit = 0 <= args.other_share < 1 and args.forget >= 0
    if args.folder is None or len(args.codec) > 1 or args.steps < 1 or args.lr <= 0 or not shares_fit:
        raise UserError(
            "`codec tune` takes songs, a folder, at most one --codec, steps and lr above 0, a share below 1, and a "
            "--forget of 0 or more.",
            fix="For example: woodshed codec tune my_songs/ my-decoder/ --codec starter",
        )
    codec = load_codec(resolve_codec(args.codec[0] if args.codec else "starter"), pick_device(args.device))
    if not isinstance(codec, TransformersCodec):
        raise UserError("The decoder of this codec cannot be tuned.", fix="Use an EnCodec, DAC, Mimi or X-Codec.")
    settings = TuneSettings(
        steps=args.steps, lr=args.lr, other_share=args.other_share, discriminators=args.discriminators
    )
    tuned = tune(args.songs, args.folder, codec, settings, other=args.other, forget=args.forget)
    for line in tuned.left_out:
        print(f"left out: {harmless(line)}")
    change = tuned.after / tuned.before - 1
    print(
        f"held-out songs: mel distance {tuned.before:.3f} → {tuned.after:.3f} ({change:+.1%}), step {tuned.best_step}"
    )
    if tuned.other_before is not None and tuned.other_after is not None:
        change = tuned.other_after / tuned.other_before - 1
        print(f"other music:    mel distance {tuned.other_before:.3f} → {tuned.other_after:.3f} ({change:+.1%})")
    if tuned.strength < 1 and tuned.other_before is not None and tuned.other_full is not None:
        own, others = tuned.full / tuned.before - 1, tuned.other_full / tuned.other_before - 1
        print(
            f"strength:       {tuned.strength:g} of the way to the tuned decoder (all of it: {own:+.1%}, {others:+.1%})"
        )
    print(f"The decoder:    {tuned.path}")
    return 0


def _print(report: "Report") -> None:
    from rich.console import Console
    from rich.table import Table

    from finetune.terminal import harmless

    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("codec", "bits spent", "kbps", "mel", "STFT", "SI-SDR dB", "ViSQOL", "efficiency"):
        table.add_column(heading, no_wrap=True, justify="left" if heading in ("codec", "bits spent") else "right")
    for result in report.results:
        for number, level in enumerate(result.levels):
            mean, efficiency = level.mean, level.bitrate_efficiency
            table.add_row(
                harmless(result.name) if number == 0 else "",
                level.name,
                f"{level.bitrate_bps / 1000:.3g}",
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
