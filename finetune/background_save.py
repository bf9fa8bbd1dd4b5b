"""Checkpoints that the loop does not wait for: a copy is taken at once, a thread writes it to the disk.

The copy is of the moment at which it was asked for, so the files are those that a waiting save would have written. One
is written at a time; the next one asked for waits for it. Until a checkpoint is renamed into place it does not exist:
a kill meanwhile leaves the one before, as with a waiting save.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from configs.errors import UserError
from finetune.checkpoint import Snapshot, State, prune, snapshot, write


class BackgroundSave:
    """Writes the checkpoints of one folder, and prunes behind them."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save(self, state: State) -> None:
        """Copy the state now, write it soon.

        Raises:
            UserError: an earlier checkpoint could not be written.
        """
        self.wait()
        if not (self.folder / f"checkpoint-{state.position.step}").exists():
            self._writing = self._thread.submit(self._write, snapshot(state), state.position.best_step)

    def wait(self) -> None:
        """Return when everything asked for is on the disk.

        Raises:
            UserError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Let what is being written come to its end before the process goes; what fails then is said elsewhere."""
        with suppress(UserError):
            self.wait()
        self._thread.shutdown()

    def _write(self, copy: Snapshot, best_step: int | None) -> None:
        write(self.folder, copy)
        prune(self.folder, self.keep, best_step)
