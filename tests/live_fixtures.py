"""Sessions of `woodshed live` on the debug base, and ears for them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from adapter_fixtures import write_adapter
from torch import Tensor

from adapters.sampler import AdapterSpec
from configs.live import LiveSettings
from finetune.live.player import Chunk
from finetune.live.run import open_session
from finetune.live.session import LiveSession

QUICK = {
    "chunk_sec": 0.2,
    "buffer_sec": 0.2,
    "window_sec": 4.0,
    "overlap_sec": 1.0,
    "fade_sec": 0.0,
    "precision": "fp32",
}
PATIENCE_SEC = 60.0
"""On a busy machine."""


def write_mine(base: Path, folder: Path) -> Path:
    """An adapter that is heard."""
    return write_adapter(folder / "mine", base, size=1.0)


@contextmanager
def opened(base: Path, adapter: Path | list[Path] | None, folder: Path, **changes: Any) -> Iterator[LiveSession]:
    """A session on a base, closed afterwards."""
    settings = LiveSettings.model_validate({**QUICK, **changes})
    specs = [AdapterSpec(path) for path in ([adapter] if isinstance(adapter, Path) else adapter or [])]
    session = open_session(specs, settings, base=str(base), prompts=["drums", "a quiet piano"], folder=folder)
    try:
        yield session
    finally:
        session.close()


class Ear:
    """Keeps what a session says. Use `until` to wait for it."""

    def __init__(self, session: LiveSession) -> None:
        self.chunks: list[Chunk] = []
        self.messages: list[dict[str, Any]] = []
        self.changed = threading.Condition()
        self.leave = session.subscribe(self._hear)

    def _hear(self, event: Any) -> None:
        with self.changed:
            kept: list[Any] = self.chunks if isinstance(event, Chunk) else self.messages
            kept.append(event)
            self.changed.notify_all()

    def until(self, wanted: Callable[[], Any]) -> Any:
        """Wait until this is true of what was heard."""
        with self.changed:
            assert self.changed.wait_for(wanted, PATIENCE_SEC), [m for m in self.messages if m["type"] != "status"]
            return wanted()

    def seconds(self, rate_hz: int = 32000) -> float:
        """Music heard."""
        return sum(chunk.waveform.shape[1] for chunk in self.chunks) / rate_hz

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """Messages."""
        return [message for message in self.messages if message["type"] == kind]

    def audio(self, run: int = 1) -> Tensor:
        """The music of one piece."""
        return torch.cat([chunk.waveform for chunk in self.chunks if chunk.run == run], dim=1)


def eventually(wanted: Callable[[], Any]) -> None:
    """Wait for what nobody tells."""
    end = time.monotonic() + PATIENCE_SEC
    while not wanted():
        assert time.monotonic() < end
        time.sleep(0.02)
