"""When one of several processes cannot go on, the others are told, instead of waiting for it for a day.

In the middle of a step the others wait inside a collective call that nothing in Python can interrupt. So each process
has a thread beside it that looks at the store which all processes share since they met. The one that fails leaves its
reason there and waits, for a moment at most, until the others have read it; they say it and end. What was saved stays:
`--resume` goes on from there.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from finetune.stop import Stopped

if TYPE_CHECKING:
    from accelerate import Accelerator

LOOK_EVERY_SEC = 1.0
WAIT_AT_MOST_SEC = 20.0
REASON, HEARD = "woodshed/reason", "woodshed/heard"
EXIT_CODE = 2
GO_ON = "What was saved stays: --resume goes on from there."


class Alarm:
    """Of one process. Without others it does nothing."""

    def __init__(self, accelerator: "Accelerator", leave: Callable[[int], Any] = os._exit) -> None:
        """`leave` ends this process from its second thread, whatever the first one is waiting for."""
        self.rank, self.others = accelerator.process_index, accelerator.num_processes - 1
        self.leave = leave
        self._store = _shared_store() if self.others else None
        self._over = threading.Event()
        if self._store is not None:
            threading.Thread(target=self._listen, daemon=True, name="alarm").start()

    def close(self) -> None:
        """Listen no longer: the processes go separate ways from here on."""
        self._over.set()

    def leaving(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """As an exit callback: where this process ends by an error, whatever it is, the others learn of it."""
        if isinstance(error, Exception) and not isinstance(error, Stopped) and not self._over.is_set():
            first_line = (str(error) or type(error).__name__).splitlines()[0]
            known = isinstance(error, UserError)
            self.raise_with_others(error if known else UserError(f"{type(error).__name__}: {first_line}", fix=GO_ON))
        self.close()

    def raise_with_others(self, error: UserError) -> UserError:
        """Tell the others why this process ends, and wait until they know; returns the error to raise."""
        self.close()
        if self._store is not None:
            # The process that holds the store may leave as soon as it knows: then nobody is left to wait for.
            with suppress(RuntimeError):
                self._store.set(REASON, f"process {self.rank}: {error.what} ({error.where}) {error.fix}")
                end = time.monotonic() + WAIT_AT_MOST_SEC
                self._store.add(HEARD, 1)  # where all end at once, nobody waits for anybody
                while self._store.add(HEARD, 0) <= self.others and time.monotonic() < end:
                    time.sleep(LOOK_EVERY_SEC / 5)
        return error

    def _listen(self) -> None:
        assert self._store is not None
        while not self._over.wait(LOOK_EVERY_SEC):
            try:
                if not self._store.check([REASON]):
                    continue
                reason = self._store.get(REASON).decode()
                self._store.add(HEARD, 1)
            except RuntimeError:  # the process that holds the store is gone
                return
            print(f"stopped, because another process did: {reason}", file=sys.stderr, flush=True)
            self.leave(EXIT_CODE)
            return


def _shared_store() -> Any:
    """Where the processes of this run met; a connection of this thread's own, since a wait would block another's."""
    from torch.distributed import distributed_c10d

    return distributed_c10d._get_default_store().clone()
