"""Everybody who hears a session: pages, recordings in memory, tests. Who is too slow is not waited for."""

import threading
import time
from collections.abc import Callable
from typing import Any

from finetune.live.player import Chunk

Event = Chunk | dict[str, Any]
"""Music, or a message as docs/live.md describes them."""
Listener = Callable[[Event], None]
"""Called on the worker's thread, or on that of whoever moved a control; it must return at once."""


class Audience:
    """The listeners, and since when there is none. `changed` is notified when one comes or leaves."""

    def __init__(self, changed: threading.Condition) -> None:
        self.empty_since: float | None = None
        """By `time.monotonic`; None while somebody listens, and before the first one came."""
        self._changed = changed
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Hear everything from now on; call what comes back to leave."""
        with self._changed:
            self._listeners.append(listener)
            self.empty_since = None
            self._changed.notify_all()

        def leave() -> None:
            with self._changed:
                if listener in self._listeners:
                    self._listeners.remove(listener)
                if not self._listeners:
                    self.empty_since = time.monotonic()
                self._changed.notify_all()

        return leave

    def tell(self, event: Event) -> None:
        """Everybody hears this."""
        for listener in tuple(self._listeners):
            listener(event)
