"""Where a listener is who hears the music as it comes: how much is left to hear, and every gap.

The server paces itself by this clock, and every page plays by the same rule: it begins once `begin_sec` of music are
there, and after a gap waits for as much again. A gap is counted, never hidden.
"""

import time
from collections.abc import Callable


class PlayClock:
    """Counts music that is pushed against time that passes."""

    def __init__(self, begin_sec: float, now: Callable[[], float] = time.monotonic) -> None:
        self.begin_sec = begin_sec
        self.gaps = 0
        self.gap_sec = 0.0
        self.last_gap: float | None = None
        """When the last gap began, by `now`."""
        self._now = now
        self._at = now()
        self._level_sec = 0.0
        self._running = self._paused = False

    def push(self, seconds: float) -> None:
        """More music is there."""
        self._settle()
        self._level_sec += seconds
        self._settle()

    @property
    def level_sec(self) -> float:
        """Music that is there and not yet heard."""
        self._settle()
        return self._level_sec

    @property
    def hears(self) -> bool:
        """Whether sound comes out at this moment."""
        self._settle()
        return self._running and not self._paused

    def pause(self) -> None:
        """Nothing is heard from here on; what is there stays."""
        self._settle()
        self._paused = True

    def resume(self) -> None:
        """Go on."""
        self._settle()
        self._paused = False
        self._settle()

    def _settle(self) -> None:
        now = self._now()
        passed, self._at = now - self._at, now
        if self._paused:
            return
        if not self._running:
            self.gap_sec += passed if self.gaps else 0.0
            self._running = self._level_sec >= self.begin_sec
            return
        if passed > self._level_sec:
            self.gaps += 1
            self.gap_sec += passed - self._level_sec
            self.last_gap = now - (passed - self._level_sec)
            self._level_sec, self._running = 0.0, False
        else:
            self._level_sec -= passed
