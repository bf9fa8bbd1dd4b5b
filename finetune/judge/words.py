"""A verdict on a terminal: the headline, a line a finding, the choice."""

import textwrap
from collections.abc import Iterator

from adapters.printable import printable
from finetune.judge.findings import Verdict

MARKS = {"good": "+", "notice": "~", "bad": "!", "plain": " "}
WIDTH = 110


def verdict_lines(verdict: Verdict) -> Iterator[str]:
    """Plain text; `!` is a fault, `~` something to look at, `+` as it should be."""
    yield from _wrapped(verdict.headline, "")
    yield ""
    for one in verdict.findings:
        yield from _wrapped(f"{MARKS[one.level]} {one.title}: {one.text}", "  ")
    yield ""
    yield from _wrapped(verdict.choice, "")
    for note in verdict.notes:
        yield from _wrapped(note, "")


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(printable(text), WIDTH, subsequent_indent=indent)
