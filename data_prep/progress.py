"""The one progress bar: a bar with counts and time left on a terminal, one plain line per finished stage elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Stage:
    """What a running stage reports: units done, and of these how many were there already."""

    name: str
    total: int
    done: int = 0
    reused: int = 0
    seconds: float = 0.0
    _bar: Any = field(default=None, repr=False)

    def advance(self, count: int = 1, *, reused: bool = False) -> None:
        """Count finished units; `reused` ones were found finished from an earlier run."""
        self.done += count
        self.reused += count if reused else 0
        if self._bar is not None:
            self._bar.advance(0, count)


@contextmanager
def stage(name: str, total: int, *, unit: str = "") -> Iterator[Stage]:
    """Show the progress of one stage on stderr. A stage without work says nothing."""
    started = time.perf_counter()
    running = Stage(name, total)
    terminal = sys.stderr.isatty() and total > 0
    with _bar(name, total) if terminal else _no_bar() as bar:
        running._bar = bar
        yield running
    running.seconds = time.perf_counter() - started
    if total and not terminal:
        print(_line(running, unit), file=sys.stderr, flush=True)


def _line(finished: Stage, unit: str) -> str:
    words = f"{finished.name}: {finished.done} {unit}".rstrip()
    if finished.reused:
        words += f", {finished.reused} of them done before"
    return f"{words} ({finished.seconds:.1f} s)"


@contextmanager
def _bar(name: str, total: int) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        progress.add_task(name, total=total)
        yield progress


@contextmanager
def _no_bar() -> Iterator[None]:
    yield None


def quiet_libraries() -> None:
    """Switch off bars and remarks of transformers, datasets and bitsandbytes: a command has words of its own."""
    import logging as python_logging

    import datasets
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    datasets.disable_progress_bars()
    python_logging.getLogger("bitsandbytes").setLevel(python_logging.ERROR)  # warns of optional kernels on every CPU
