"""The same function over many inputs on several processes, surviving inputs that crash the process.

Processes are started afresh, not forked: the parent may hold a GPU and threads. They end with their parent, even
when that is killed.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class CrashError(Exception):
    """An input that ended the process working on it: a bug in a decoder, or memory running out."""


def run_each(
    function: Callable[[Any], Any], inputs: Sequence[Any], workers: int
) -> Iterator[tuple[int, Any | Exception]]:
    """Yield (index, result or the exception raised) as they finish, in any order. 0 workers means one per core.

    `function` is a module's own function; inputs, results and exceptions travel between processes.
    """
    count = min(workers or os.cpu_count() or 1, len(inputs))
    if count <= 1:
        yield from ((index, _outcome(function, value)) for index, value in enumerate(inputs))
        return
    left = set(range(len(inputs)))
    for index, result in _together(function, inputs, count):
        left.discard(index)
        yield index, result
    for index in sorted(left):
        yield index, _alone(function, inputs[index])


def _outcome(function: Callable[[Any], Any], value: Any) -> Any | Exception:
    try:
        return function(value)
    except Exception as error:
        return error


def _together(function: Callable[[Any], Any], inputs: Sequence[Any], count: int) -> Iterator[tuple[int, Any]]:
    """Results until all are there or a process crashes, which ends the whole pool."""
    with _pool(count) as pool:
        waiting: dict[Future[Any], int] = {}
        ahead = iter(enumerate(inputs))
        try:
            while True:
                while len(waiting) < 2 * count and (task := next(ahead, None)):
                    waiting[pool.submit(function, task[1])] = task[0]
                if not waiting:
                    return
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    error = future.exception()
                    if isinstance(error, BrokenProcessPool):
                        return
                    yield waiting.pop(future), error if error is not None else future.result()
        except BrokenProcessPool:
            return


def _alone(function: Callable[[Any], Any], value: Any) -> Any | Exception:
    with _pool(1) as pool:
        try:
            return pool.submit(function, value).result()
        except BrokenProcessPool:
            return CrashError("the process working on it crashed")
        except Exception as error:
            return error


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
