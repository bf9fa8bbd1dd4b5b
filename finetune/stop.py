"""Ctrl-C and SIGTERM: an end in words for every command, and in training a wish, so that the loop saves first.

The second signal of any kind ends the process at once and says nothing: what it leaves is what a kill leaves.

A signal that comes while Python runs a destructor or a weak reference's callback is lost: an exception cannot leave
these. It is sent again a moment later then.
"""

import _thread
import signal
import sys
import threading
from contextlib import AbstractContextManager
from typing import Any


class Stopped(Exception):  # noqa: N818
    """A run was stopped from outside, after saving. `code` is the exit code that shells expect: 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


class Interrupted(KeyboardInterrupt):
    """A command was stopped from outside. `code` is the exit code that shells expect: 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_SEC = 0.02


def stop_in_words() -> None:
    """From now on the first signal raises `Interrupted` in the main thread. For a process of our own alone."""

    def first(number: int, frame: Any) -> None:
        no_more_words()
        raise Interrupted(number)

    def lost(unraisable: Any, otherwise: Any = sys.unraisablehook) -> None:
        if not isinstance(unraisable.exc_value, Interrupted):
            otherwise(unraisable)
            return
        number = unraisable.exc_value.code - 128
        signal.signal(number, first)
        again = threading.Timer(_AGAIN_SEC, _send_again, (number,))
        again.daemon = True
        again.start()

    sys.unraisablehook = lost
    for number in SIGNALS:
        signal.signal(number, first)


def _send_again(number: Any) -> None:
    """A real signal where there are any: what only marks one as come would not end a wait of the main thread."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, number)
    else:
        _thread.interrupt_main(number)


def no_more_words() -> None:
    """From now on a signal ends the process without a word, even while the interpreter shuts down.

    Not by the system's own way at once: Python complains of a signal that came just before its handler was given back.
    """
    for number in SIGNALS:
        signal.signal(number, _end_now)


def _end_now(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


class StopWish(AbstractContextManager["StopWish"]):
    """Notes the first signal while the block runs; `signal` is its number, 0 before."""

    def __init__(self) -> None:
        self.signal = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "StopWish":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        self.signal = number
        no_more_words()
