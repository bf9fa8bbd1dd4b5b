"""`woodshed sample`: prompts → audio files, or sound at once."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from configs.sample import SampleSettings

SECTION = "sample"
ALIASES = {"duration": "duration_sec", "text-encoder": "text_encoder"}
EXAMPLES = """
woodshed sample runs/mine/adapter "slow ballad, piano, in the style of mine" --out out/
woodshed sample --base facebook/musicgen-small "slow ballad, piano"          # the base alone, to compare
woodshed sample runs/mine/adapter "ballad" "fast punk" --duration 30 --seed 7 --strength 0.8
woodshed sample --adapter runs/a/adapter@0.8 --adapter runs/b/adapter@0:0,20:1 "drums" --duration 20
woodshed sample runs/mine/adapter "more of this" --continue song.wav --from 12.5
woodshed sample runs/drums/adapter "tight funk drums" --with demo.wav --from 12  # the part alone, and the mix
woodshed sample runs/mine/adapter "funk, slap bass" --loop --bpm 110 --bars 4
woodshed sample runs/mine/adapter --story "0:00 calm piano" "0:15 add drums" --duration 30
woodshed sample runs/mine/adapter --mix "0.7 calm piano" "0.3 fast drums"
woodshed sample runs/mine/adapter "string quartet" --melody hummed.wav --from 2    # with a melody base
woodshed sample runs/mine/adapter "string quartet" --notes song.mid --drums off    # with Magenta RealTime
woodshed sample runs/mine/adapter "slow" --style song.wav --style-weight 0.7       # with Magenta RealTime
woodshed sample runs/beats/adapter "funk, slap bass" --beat 104                    # an adapter of prep --beat
woodshed sample runs/mine/adapter "ambient" --duration 120 --play
woodshed sample runs/mine/adapter "ambient" --pipe wav | ffplay -
"""


def arguments(parser: Any) -> None:
    """What comes before the flags, and flags that are no settings."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[ADAPTER] PROMPT",
        help="An adapter's folder (optional with --base), then prompts.",
    )
    parser.add_argument("--out", type=Path, help="Folder to write to (default: out/; with --play or --pipe: nowhere).")
    parser.add_argument("--base", help="The base: a hub id, a folder, debug. Default: the one the adapter names.")
    parser.add_argument("--revision", help="A fixed commit or tag of a base on the hub.")
    parser.add_argument(
        "--adapter", action="append", metavar="DIR[@STRENGTH]", help="An adapter and its strength; may be repeated."
    )
    parser.add_argument(
        "--strength", metavar="X", help="Strength of the first adapter: a number, or seconds and values, 0:1,10:0."
    )
    parser.add_argument("--prompts-file", type=Path, metavar="FILE", help="A prompt per line; empty lines are skipped.")
    parser.add_argument("--story", nargs="+", metavar="MOMENT PROMPT", help='Prompts over time, "0:15 add drums" each.')
    parser.add_argument("--mix", nargs="+", metavar="WEIGHT PROMPT", help='Prompts at once, "0.7 calm piano" each.')
    parser.add_argument("--continue", dest="continued", type=Path, metavar="FILE", help="Go on from this recording.")
    parser.add_argument(
        "--with", dest="context", type=Path, metavar="FILE", help="Play along with this recording (adapters of --pair)."
    )
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE.html",
        help="With --with: a page to compare on: the recording, the part, both, and a part that does not know it.",
    )
    parser.add_argument("--melody", type=Path, metavar="FILE", help="Follow the melody of this recording.")
    parser.add_argument(
        "--melody-stems",
        default="mix",
        metavar="STEMS",
        help="What of it: mix (all of it, the default), rest (all but drums and bass), or stems as in prep.",
    )
    parser.add_argument("--notes", type=Path, metavar="MIDI", help="Follow the notes, and the drums, of a MIDI file.")
    parser.add_argument(
        "--drums", choices=["on", "off"], help="With drums or without (a base that takes this as a condition)."
    )
    parser.add_argument(
        "--style", type=Path, metavar="FILE", help="Follow this recording's style, with or without words beside it."
    )
    parser.add_argument(
        "--style-weight", type=float, metavar="X", help="Weight of --style beside a prompt's words, up to 1 (0.5)."
    )
    parser.add_argument(
        "--beat", metavar="BPM|FILE", help="Keep to this tempo, to a table of beats, or to a recording's beats."
    )
    parser.add_argument(
        "--from",
        dest="from_sec",
        type=float,
        metavar="SEC",
        help="Where to go on in --continue (default: its end), or where --melody, --beat or --with begins (0).",
    )
    parser.add_argument("--loop", action="store_true", help="A seamless loop of --bars at --bpm.")
    parser.add_argument("--bpm", type=float, metavar="X", help="Tempo of the loop (120).")
    parser.add_argument("--bars", type=int, metavar="N", help="Bars of four beats in the loop (4).")
    parser.add_argument("--force", action="store_true", help="Play an adapter made for other weights of this shape.")
    parser.add_argument(
        "--play", action="store_true", help="Play it while it is being generated. Kept in out/ where the player fails."
    )
    parser.add_argument("--pipe", choices=["wav", "raw"], help="Send it to standard output, as wav or raw 16-bit PCM.")


def run(args: Namespace, settings: SampleSettings) -> int:
    """Read the line, load, play."""
    from finetune.sampling.line import read_line

    request = read_line(args, settings)  # before anything heavy is imported
    from finetune.sampling.session import play_line

    return play_line(request)
