"""`woodshed live`: play a base and its adapters as an instrument, on a page in the browser."""

import importlib.util
from argparse import Namespace
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.live import LiveSettings
from data_prep.typed_paths import is_file

SECTION = "live"
PACKAGES = ("starlette", "uvicorn", "websockets")
"""What the extra `live` brings."""
EXAMPLES = """
woodshed live runs/mine/adapter                         # prints an address: open it in a browser
woodshed live runs/a/adapter@0.8 runs/b/adapter@0       # two adapters, a fader each
woodshed live --base starter --prompt "slow piano" --prompt "fast drums" --precision int8
woodshed live runs/mine/adapter --chunk_sec 0.25 --buffer_sec 0.3     # answers sooner, needs a faster machine
woodshed live runs/drums/adapter --with demo.wav        # an adapter of prep --pair plays along, again and again
woodshed live runs/mine/adapter --host 0.0.0.0          # other machines too, with the token that it prints
"""


def arguments(parser: Any) -> None:
    """What comes before the flags, and flags that are no settings."""
    parser.add_argument("adapters", nargs="*", metavar="ADAPTER[@X]", help="Adapters' folders; a fader each.")
    parser.add_argument("--base", help="The base: a hub id, a folder, starter. Default: the one the adapter names.")
    parser.add_argument("--revision", help="A fixed commit or tag of a base on the hub.")
    parser.add_argument("--prompt", action="append", metavar="TEXT", help="A prompt to begin with; may be repeated.")
    parser.add_argument(
        "--with", dest="context", type=Path, metavar="FILE", help="Play along with this recording (adapters of --pair)."
    )
    parser.add_argument("--from", dest="from_sec", type=float, metavar="SEC", help="Where in it to begin (0).")
    parser.add_argument("--out", type=Path, default=Path("out"), help="Folder for recordings (out/).")
    parser.add_argument("--force", action="store_true", help="Play an adapter made for other weights of this shape.")


def run(args: Namespace, settings: LiveSettings) -> int:
    """Load, print the address, serve until stopped."""
    if not args.adapters and not args.base:
        raise UserError("neither an adapter nor a base was named", fix="woodshed live runs/mine/adapter, or --base ID")
    from adapters.adapter_folder import find_weights
    from finetune.commands.merge import parse_spec

    if args.context is not None and not is_file(args.context):
        raise UserError("the recording to play along with is not there", where=str(args.context))
    if args.from_sec is not None and (args.context is None or not 0 <= args.from_sec < float("inf")):
        raise UserError("--from says where in the recording of --with to begin: 0 or more", fix="--with FILE --from 8")
    named = [parse_spec(text) for text in args.adapters]
    for path, _ in named:
        find_weights(path)  # before torch is imported
    check_packages()
    from rich.console import Console

    from adapters.decode.strength_schedule import StrengthSchedule
    from adapters.sampler import AdapterSpec
    from finetune.live.run import play

    specs = [AdapterSpec(path, StrengthSchedule.constant(strength)) for path, strength in named]
    return play(
        specs,
        settings,
        Console(highlight=False),
        base=args.base,
        revision=args.revision,
        prompts=args.prompt or (),
        folder=args.out,
        force=args.force,
        context=args.context,
        from_sec=args.from_sec,
    )


def check_packages() -> None:
    """Refuse early what is not installed.

    Raises:
        UserError: names what is missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"`woodshed live` needs {', '.join(missing)}", fix='pip install "woodshed[live]"')
