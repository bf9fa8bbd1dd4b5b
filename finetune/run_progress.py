"""How a run looks on a terminal: one live line; off a terminal, a plain line now and then."""

import sys
import time
from contextlib import AbstractContextManager
from typing import Any

import torch

LINES_OFF_TERMINAL = 20
"""Plain lines over a whole run."""


class RunProgress(AbstractContextManager["RunProgress"]):
    """Shows steps as they come. Silent where `shown` is false (all processes but the first)."""

    def __init__(self, total: int, done: int, *, shown: bool) -> None:
        self.total, self.shown = total, shown
        self.first, self.started = done, time.perf_counter()
        self.audio_sec = 0.0
        self.every = max(1, total // LINES_OFF_TERMINAL)
        self.bar = _bar(total, done) if shown and sys.stderr.isatty() else None

    def __enter__(self) -> "RunProgress":
        self.started = time.perf_counter()
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, step: int, loss: float, audio_sec: float) -> None:
        """A step is done: its number counts from 1, `audio_sec` is the music in it."""
        self.audio_sec += audio_sec
        if not self.shown:
            return
        seconds = max(1e-9, time.perf_counter() - self.started)
        rates = {"rate": (step - self.first) / seconds, "audio": self.audio_sec / seconds}
        left_sec = (self.total - step) / rates["rate"]
        memory = memory_bytes() / 2**30
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=step, loss=loss, memory=memory, **rates)
        elif step % self.every == 0 or step in (self.first + 1, self.total):
            words = (
                f"step {step}/{self.total}  loss {loss:.4f}  {rates['rate']:.2f} it/s  {rates['audio']:.1f} s/s audio"
            )
            self.say(f"{words}  {_clock(left_sec)} left  {memory:.2f} GiB")

    def say(self, text: str) -> None:
        """A line above the bar."""
        if self.bar is not None:
            self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif self.shown:
            print(text, file=sys.stderr, flush=True)


def memory_bytes() -> int:
    """Peak memory of this process: reserved on the GPU, where there is one in use; otherwise resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_reserved()
    try:
        import resource
    except ImportError:  # Windows has no such call
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bar(total: int, done: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TextColumn("{task.fields[rate]:.2f} it/s"),
        TextColumn("{task.fields[audio]:.1f} s/s audio"),
        TextColumn("{task.fields[memory]:.2f} GiB"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    progress = Progress(*columns, console=Console(stderr=True))
    progress.add_task("train", total=total, completed=done, loss=float("nan"), rate=0.0, audio=0.0, memory=0.0)
    return progress
