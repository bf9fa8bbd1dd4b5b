"""The recordings of a session, one after the other. Where a disk refuses, the recording ends and the music does not."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adapters.audio_out import slug
from configs.errors import UserError
from finetune.live.audience import Event
from finetune.live.error_message import error_message
from finetune.live.player import Chunk
from finetune.live.recording import LONGEST_SEC, Recording


class Recorder:
    """Belongs to the worker's thread. `tell` hears of every file that is whole, and of what went wrong."""

    def __init__(self, folder: Path, tell: Callable[[Event], None]) -> None:
        self.folder, self.tell = folder, tell
        self.finished: dict[str, Path] = {}
        """By file name, since the session began."""
        self._now: Recording | None = None

    @property
    def is_on(self) -> bool:
        """Whether a file grows."""
        return self._now is not None

    def begin(self, prompt: str, rate_hz: int, channels: int, made_by: Mapping[str, Any]) -> None:
        """A new file, named after its first prompt and its seed.

        Raises:
            UserError: the disk is full or refuses.
        """
        name = f"live-{slug(prompt, 40)}-s{made_by['seed']}"
        self._now = Recording(self.folder, name, rate_hz, channels, made_by)

    def write(self, chunk: Chunk) -> bool:
        """Append music where a file grows. False: the disk refused, and the file ends before this chunk.

        A file that is long enough ends, and the next chunk begins another.
        """
        if self._now is None:
            return True
        try:
            self._now.write(chunk.waveform.numpy())
        except UserError as error:
            self.tell(error_message(error))
            self.finish()
            return False
        if self._now.seconds >= LONGEST_SEC:
            self.finish()
        return True

    def note(self, what: Mapping[str, Any]) -> None:
        """A control was moved."""
        if self._now is not None:
            self._now.note(what)

    def finish(self) -> None:
        """End the file, if there is one. What the disk refuses is told, never raised: what was written is kept."""
        recording, self._now = self._now, None
        if recording is None:
            return
        try:
            path = recording.finish()
        except UserError as error:
            self.tell(error_message(error))
            return
        try:
            recording.write_moves()
        except UserError as error:
            self.tell(error_message(error))
        self.finished[path.name] = path
        seconds = round(recording.seconds, 2)
        self.tell({"type": "recorded", "file": str(path), "name": path.name, "seconds": seconds})
