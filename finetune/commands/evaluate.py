"""`woodshed evaluate`: is this adapter good, which checkpoint, which strength; one page, one verdict."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from configs.evaluate import EvaluateSettings

SECTION = "evaluate"
ALIASES: dict[str, str] = {}
EXAMPLES = """
woodshed evaluate runs/mine                                # choose checkpoint and strength, say how good it is
woodshed evaluate runs/mine --mode full                    # narrower intervals, about four times as long
woodshed evaluate runs/mine/adapter --data data/mine       # an adapter alone; --data says what it was taught
woodshed evaluate friends/blues --no-store                 # look at an adapter without writing into it
woodshed evaluate runs/mine --listening-test test.html     # a blind test for people, as one page
woodshed evaluate runs/mine --ratings ann.json ben.json    # their answers, with intervals
"""


def arguments(parser: Any) -> None:
    """The adapter, where its data is, and what to do with the verdict."""
    parser.add_argument("subject", type=Path, metavar="RUN_OR_ADAPTER", help="A run's folder, or an adapter's.")
    parser.add_argument("--data", type=Path, help="The prepared dataset. Default: the one that the run names.")
    parser.add_argument("--base", help="The base: a hub id, a folder. Default: the one that the adapter names.")
    parser.add_argument("--revision", help="A fixed commit or tag of a base on the hub.")
    parser.add_argument("--out", type=Path, help="Folder of the page. Default: `evaluation` in the run.")
    parser.add_argument("--no-store", action="store_true", help="Do not write the choice into the adapter.")
    parser.add_argument("--json", action="store_true", help="Print the verdict as JSON, and nothing else.")
    parser.add_argument("--listening-test", type=Path, metavar="FILE", help="Only write a blind listening test.")
    parser.add_argument("--ratings", type=Path, nargs="+", metavar="FILE", help="Only read results of that test.")


def run(args: Namespace, settings: EvaluateSettings) -> int:
    """Judge, write, say. 0 whatever the verdict is."""
    if args.ratings:
        return _ratings(args)
    from data_prep.progress import quiet_libraries

    quiet_libraries()
    if args.listening_test is not None:
        return _listening_test(args, settings)
    import sys

    from data_prep.safe_write import check_writable
    from finetune.judge.flow import judge
    from finetune.judge.keep import PAGE, store, write_out
    from finetune.judge.run_page import show_on_run

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if args.out is not None:
        check_writable(args.out / PAGE)  # before the time is spent, not after
    judged = judge(args.subject, settings, data=args.data, base=args.base, revision=args.revision, say=say)
    page = write_out(judged, args.out or judged.subject.out)
    stored = [] if args.no_store else store(judged)
    if judged.subject.run is not None:
        show_on_run(judged.subject.run, judged.verdict, page)
    if args.json:
        print(judged.verdict.to_json(), end="")
        return 0
    from finetune.judge.words import verdict_lines

    for line in [*verdict_lines(judged.verdict), *stored, f"page: {page}"]:
        print(line)
    return 0


def _listening_test(args: Namespace, settings: EvaluateSettings) -> int:
    from finetune.judge.listening_page import write_listening_test

    n_pairs = write_listening_test(
        args.listening_test, args.subject, settings, data=args.data, base=args.base, revision=args.revision
    )
    print(
        f"{args.listening_test}: {n_pairs} comparisons; open it in a browser and keep the file that it saves at the end"
    )
    return 0


def _ratings(args: Namespace) -> int:
    from finetune.judge.ratings import ratings_lines, ratings_of, to_json

    found = ratings_of(args.ratings)
    print(to_json(found) if args.json else "\n".join(ratings_lines(found)))
    return 0
