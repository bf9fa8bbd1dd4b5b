"""What has been asked of a session and is to be done: those who ask and the one who does it share it under one lock."""

import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from finetune.live.controls import Controls


@dataclass
class Wanted:
    """Read and replace fields while holding `changed`, and notify it afterwards."""

    controls: Controls
    """One value: it is replaced, never changed in place, so that it may be read without the lock."""
    seed: int = 0
    run: int = 1
    """Which piece: it rises with every reset, failure and rest."""
    playing: bool = False
    recording: bool = False
    restart: bool = False
    closing: bool = False
    asked_at: float | None = None
    """When the first control was moved that the music does not follow yet, by `time.monotonic`."""
    changed: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))

    def ask(self) -> None:
        """A control was moved at this moment; the oldest one counts."""
        self.asked_at = self.asked_at or time.monotonic()

    def as_message(self) -> dict[str, Any]:
        """Everything that is set, for pages."""
        with self.changed:
            flags = {"run": self.run, "seed": self.seed, "playing": self.playing, "recording": self.recording}
            return {"type": "state", **flags, **asdict(self.controls)}
