"""`woodshed demo`: prep, train and sample on songs that come with Woodshed, in a few minutes, with nothing to fetch."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

EXAMPLES = """
woodshed demo                                     # ten small songs, the embedded base; a few minutes on two CPU cores
woodshed demo --songs my_songs/ --out my-demo     # the same with recordings of your own
"""
SECTION = None


def arguments(parser: Any) -> None:
    """Flags of its own."""
    parser.add_argument("--out", type=Path, default=Path("woodshed-demo"), help="Folder to write to (woodshed-demo).")
    parser.add_argument("--songs", type=Path, help="Songs to learn from (default: the ten that come with Woodshed).")
    parser.add_argument("--base", default="starter", help="The base (starter: small, comes with Woodshed).")
    parser.add_argument("--steps", type=int, default=110, help="Training steps (110).")
    parser.add_argument("--seconds", type=float, default=8.0, help="Length of each piece that is played (8).")


def run(args: Namespace, settings: None) -> int:
    """Run what is left of the demo, then say where to look; 130 when stopped."""
    from data_prep.progress import quiet_libraries
    from finetune.demo.flow import run_demo
    from finetune.demo.plan import Plan, demo_songs
    from finetune.stop import Stopped

    quiet_libraries()
    plan = Plan(args.out, args.songs or demo_songs(), base=args.base, steps=args.steps, play_sec=args.seconds)
    try:
        worked = run_demo(plan)
    except (Stopped, KeyboardInterrupt) as stopped:
        print("\nStopped. What is finished is kept: the same command goes on from here.", file=sys.stderr)
        return getattr(stopped, "code", 130)
    print()
    print("Done." if worked else "This demo is done already; delete its folder to run it again.")
    print(f"Look and listen: open {plan.page} in a browser")
    print(f"Audio files:     {plan.takes}")
    print(f"The adapter:     {plan.run / 'adapter'}")
    return 0
