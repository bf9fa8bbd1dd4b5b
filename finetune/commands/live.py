"""`woodshed live`: play a base and its adapters as an instrument, on a page in the browser."""

import importlib.util
from argparse import Namespace
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.live import LiveSettings

SECTION = "live"
PACKAGES = ("starlette", "uvicorn", "websockets")
"""What the extra `live` brings."""
EXAMPLES = """
woodshed live runs/mine/adapter                         # prints an address: open it in a browser
woodshed live runs/a/adapter@0.8 runs/b/adapter@0       # two adapters, a fader each
woodshed live --base starter --prompt "slow piano" --prompt "fast drums" --precision int8
woodshed live runs/mine/adapter --chunk_sec 0.25 --buffer_sec 0.3     # answers sooner, needs a faster machine
woodshed live runs/mine/adapter --host 0.0.0.0          # other machines too, with the token that it prints
"""


def arguments(parser: Any) -> None:
    """What comes before the flags, and flags that are no settings."""
    parser.add_argument("adapters", nargs="*", metavar="ADAPTER[@X]", help="Adapters' folders; a fader each.")
    parser.add_argument("--base", help="The base: a hub id, a folder, starter. Default: the one the adapter names.")
    parser.add_argument("--revision", help="A fixed commit or tag of a base on the hub.")
    parser.add_argument("--prompt", action="append", metavar="TEXT", help="A prompt to begin with; may be repeated.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="Folder for recordings (out/).")
    parser.add_argument("--force", action="store_true", help="Play an adapter made for other weights of this shape.")


def run(args: Namespace, settings: LiveSettings) -> int:
    """Load, print the address, serve until stopped."""
    if not args.adapters and not args.base:
        raise UserError("neither an adapter nor a base was named", fix="woodshed live runs/mine/adapter, or --base ID")
    from adapters.adapter_folder import find_weights
    from finetune.commands.merge import parse_spec

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
    )


def check_packages() -> None:
    """Refuse early what is not installed.

    Raises:
        UserError: names what is missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"`woodshed live` needs {', '.join(missing)}", fix='pip install "woodshed[live]"')
