"""Ctrl-C and SIGTERM as a wish: the loop saves at the next safe place. A second Ctrl-C ends the process at once."""

import signal
import threading
from contextlib import AbstractContextManager
from typing import Any


class Stopped(Exception):  # noqa: N818
    """A run was stopped from outside, after saving. `code` is the exit code that shells expect: 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


class StopWish(AbstractContextManager["StopWish"]):
    """Notes the first signal while the block runs; `signal` is its number, 0 before."""

    def __init__(self) -> None:
        self.signal = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "StopWish":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        self.signal = self.signal or number
        signal.signal(number, self.before[number])
