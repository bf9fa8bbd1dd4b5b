"""The same function over many inputs on several processes, surviving inputs that crash the process.

Processes are started afresh, not forked: the parent may hold a GPU and threads. They end with their parent, even
when that is killed.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from typing import Any

_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class CrashError(Exception):
    """An input that ended the process working on it: a bug in a decoder, or memory running out."""


def run_each(
    function: Callable[[Any], Any], inputs: Sequence[Any], workers: int
) -> Iterator[tuple[int, Any | Exception]]:
    """Yield (index, result or the exception raised) as they finish, in any order. 0 workers means one per core.

    All of it in other processes, even a single input. Where one of them crashes, the few inputs in hand at that moment
    are tried again one at a time, which shows whose fault it was; the rest goes on as before.

    `function` is a module's own function; inputs, results and exceptions travel between processes.
    """
    count = max(1, min(workers or os.cpu_count() or 1, len(inputs)))
    ahead = iter(enumerate(inputs))
    while in_hand := (yield from _until_crash(function, ahead, count, at_once=2 * count)):
        yield from _one_at_a_time(function, in_hand)


def run_here(function: Callable[[Any], Any], inputs: Sequence[Any]) -> Iterator[tuple[int, Any | Exception]]:
    """The same in this process, in order: for what cannot crash and takes less time than a process to start."""
    for index, value in enumerate(inputs):
        try:
            result = function(value)
        except Exception as error:
            result = error
        yield index, result


def _until_crash(
    function: Callable[[Any], Any], ahead: Iterator[tuple[int, Any]], count: int, *, at_once: int
) -> Generator[tuple[int, Any], None, list[tuple[int, Any]]]:
    """Yield results until there is nothing ahead, or a process crashes, which ends its whole pool.

    Returns the inputs that were in hand then and have no result.
    """
    in_hand: dict[int, Any] = {}
    with _pool(count) as pool:
        try:
            yield from _results(partial(_submit, pool, function), ahead, in_hand, at_once)
        except BrokenProcessPool:
            return list(in_hand.items())
    return []


def _results(
    submit: Callable[[Any], Future[Any]], ahead: Iterator[tuple[int, Any]], in_hand: dict[int, Any], at_once: int
) -> Iterator[tuple[int, Any]]:
    waiting: dict[Future[Any], int] = {}
    while True:
        while len(in_hand) < at_once and (task := next(ahead, None)):
            in_hand[task[0]] = task[1]
            waiting[submit(task[1])] = task[0]
        if not waiting:
            return
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            result = _result(future)
            index = waiting.pop(future)
            del in_hand[index]
            yield index, result


def _one_at_a_time(function: Callable[[Any], Any], tasks: Sequence[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """A process that has nothing but one input in hand crashes because of that input."""
    ahead = iter(tasks)
    while in_hand := (yield from _until_crash(function, ahead, 1, at_once=1)):
        for index, _ in in_hand:
            yield index, CrashError("the process working on it crashed")


def _result(future: Future[Any]) -> Any | Exception:
    """What the function returned or raised.

    Raises:
        BrokenProcessPool: neither; its process crashed, or that of another input.
    """
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        raise error
    return future.result() if error is None else error


def _submit(pool: ProcessPoolExecutor, function: Callable[[Any], Any], value: Any) -> Future[Any]:
    """Submit, which may start a process: it must not hear a Ctrl-C in the seconds before it can ignore it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return pool.submit(function, value)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a new process inherits it
    try:
        return pool.submit(function, value)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes compute on one thread each, and are ended when the block is left early."""
    before = {name: os.environ.get(name) for name in _THREAD_LIMITS}
    os.environ.update(dict.fromkeys(_THREAD_LIMITS, "1"))
    children = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        for child in set(multiprocessing.active_children()) - children:
            child.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _start_worker() -> None:
    """Ctrl-C is the parent's to handle, and a worker whose parent was killed must not stay."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
