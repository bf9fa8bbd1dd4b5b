"""`woodshed codec`: what a codec keeps of one's songs, a decoder that learns them, and codecs of one's own."""

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
woodshed codec train my_songs/ my-codec/ --rate 32000 --frame_rate 50 --codebooks 4 --entries 2048    # one of your own
woodshed codec train my_songs/ options/ --each_option --steps 1000 --filters 8       # what each option does, one page
"""


def arguments(parser: Any) -> None:
    """What to do, with what, and flags."""
    parser.add_argument(
        "action",
        choices=["report", "tune", "train"],
        help="report: compare codecs on your songs. tune: teach a codec's decoder your sounds; tokens stay. "
        "train: a codec of your own.",
    )
    parser.add_argument("songs", type=Path, help="A folder of songs. Only read.")
    parser.add_argument(
        "folder", type=Path, nargs="?", help="tune, train: where the decoder or codec goes; a stopped run goes on."
    )
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
    parser.add_argument(
        "--keep_old", action="store_true",
        help="tune: of other music, learn to sound as the old decoder did, instead of the recordings.",
    )  # fmt: skip
    parser.add_argument(
        "--rank", type=int, default=0, help="tune: low-rank changes of this rank, a small file (0: no)."
    )
    parser.add_argument("--steps", type=int, help="tune, train: optimizer steps (600; train: 20,000).")
    parser.add_argument("--lr", type=float, help="tune, train: learning rate (0.0003; train: 0.001).")
    parser.add_argument(
        "--discriminators", action="store_true",
        help="tune: against STFT discriminators, too. train: from half of the steps on.",
    )  # fmt: skip
    _training_arguments(parser)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="Where codecs run (auto).")


def _training_arguments(parser: Any) -> None:
    """What `train` alone takes."""
    parser.add_argument("--rate", type=int, default=16_000, help="train: sample rate in Hz (16,000).")
    parser.add_argument("--frame_rate", type=float, default=50.0, help="train: frames per second (50).")
    parser.add_argument("--codebooks", type=int, default=4, help="train: how many (4).")
    parser.add_argument("--entries", type=int, default=512, help="train: of each codebook (512).")
    parser.add_argument(
        "--quantiser", choices=["residual", "grouped", "hierarchical"], default="residual",
        help="train: each codebook codes what is left; its own channels; or as the first, with fewer coarse codes.",
    )  # fmt: skip
    parser.add_argument("--codebook", choices=["ema", "learnt"], default="ema", help="train: running means, or a loss.")
    parser.add_argument("--commitment", type=float, default=0.25, help="train: weight of the commitment loss (0.25).")
    parser.add_argument("--code_dim", type=int, help="train: dimensions of a code, behind a projection (--width).")
    parser.add_argument(
        "--cosine", action="store_true", help="train: codes are directions (--code_dim 8 goes with it)."
    )
    parser.add_argument("--random_start", action="store_true", help="train: codebooks do not begin as k-means.")
    parser.add_argument(
        "--expire", type=float, default=0.1, help="train: replace codes used less than this (0.1; 0: no)."
    )
    parser.add_argument("--filters", type=int, default=16, help="train: channels of the first convolution (16).")
    parser.add_argument("--width", type=int, default=32, help="train: channels of the latents (32).")
    parser.add_argument("--batch", type=int, default=6, help="train: crops of 0.6 s per step (6).")
    parser.add_argument("--seed", type=int, default=0, help="train: of everything drawn (0).")
    parser.add_argument(
        "--each_option", action="store_true", help="train: one training per option, all else equal, on one page."
    )


def run(args: Namespace, settings: None) -> int:
    """Do what was asked for."""
    from data_prep.progress import quiet_libraries

    quiet_libraries()
    for folder in filter(None, (args.songs, args.other)):
        _check_songs(folder)
    return {"tune": _tune, "report": _report, "train": _train}[args.action](args)


def _check_songs(folder: Path) -> None:
    """Refuse a prepared dataset: what is learnt and measured here are recordings."""
    from data_prep.prepared import INFO_FILE

    if (folder / INFO_FILE).exists():
        raise UserError(
            "A prepared dataset holds tokens, and a codec is measured and learns on the recordings themselves.",
            where=str(folder),
            fix="Give the folder of songs that the dataset was made from.",
        )


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

    steps, lr = args.steps if args.steps is not None else 600, args.lr if args.lr is not None else 3e-4
    shares_fit = 0 <= args.other_share < 1 and args.forget >= 0
    if args.folder is None or len(args.codec) > 1 or steps < 1 or lr <= 0 or args.rank < 0 or not shares_fit:
        raise UserError(
            "`codec tune` takes songs, a folder, at most one --codec, steps and lr above 0, a share below 1, a "
            "--forget and a --rank of 0 or more.",
            fix="For example: woodshed codec tune my_songs/ my-decoder/ --codec starter",
        )
    codec = load_codec(resolve_codec(args.codec[0] if args.codec else "starter"), pick_device(args.device))
    if not isinstance(codec, TransformersCodec):
        raise UserError("The decoder of this codec cannot be tuned.", fix="Use an EnCodec, DAC, Mimi or X-Codec.")
    settings = TuneSettings(
        steps=steps,
        lr=lr,
        other_share=args.other_share,
        keep_old=args.keep_old,
        rank=args.rank,
        discriminators=args.discriminators,
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


def _train(args: Namespace) -> int:
    """Train a codec, or one per option, and say what it keeps."""
    from data_prep.device import pick_device
    from finetune.codec_train.quantiser import vector_quantize

    vector_quantize()  # before any work
    from finetune.codec_train.run import train_each_option, train_one
    from finetune.codec_train.train import PAGE
    from finetune.terminal import harmless

    if args.folder is None or args.codec:
        raise UserError(
            "`codec train` takes songs and a folder, and no --codec: it makes one.",
            fix="For example: woodshed codec train my_songs/ my-codec/",
        )
    settings, device = _codec_settings(args), pick_device(args.device)
    if args.each_option:
        trained = train_each_option(args.songs, args.folder, settings, device)
    else:
        trained = [("this codec", train_one(args.songs, args.folder, settings, device))]
    for line in trained[0][1].left_out:
        print(f"left out: {harmless(line)}")
    for words, one in trained:
        figures = one.figures
        print(
            f"{words}: {figures.kbps:.3g} kbps, mel distance {figures.mel[-1]:.3f}, SI-SDR {figures.si_sdr_db[-1]:.1f} "
            f"dB, {min(figures.in_use):.0%} of codes in use or more, efficiency {figures.efficiency:.0%}"
        )
    if not args.each_option:
        print(f"The codec: {trained[0][1].path} (`--codec` takes it)")
    print(f"Look and listen: open {args.folder / PAGE} in a browser")
    return 0


def _codec_settings(args: Namespace) -> Any:
    from finetune.codec_train.settings import CodecSettings, strides_for

    steps = args.steps if args.steps is not None else 20_000
    settings = CodecSettings(
        sample_rate_hz=args.rate,
        upsampling=strides_for(args.rate, args.frame_rate),
        filters=args.filters,
        width=args.width,
        codebook_dim=args.code_dim if args.code_dim is not None else args.width,
        card=args.entries,
        n_codebooks=args.codebooks,
        quantiser=args.quantiser,
        ema=args.codebook == "ema",
        commitment=args.commitment,
        cosine=args.cosine,
        kmeans=not args.random_start,
        expire=args.expire,
        batch_size=args.batch,
        lr=args.lr if args.lr is not None else 1e-3,
        steps=steps,
        quantize_from=min(1_000, steps // 10),
        adversarial_from=steps // 2 if args.discriminators else -1,
        seed=args.seed,
    )
    settings.check()
    return settings


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
