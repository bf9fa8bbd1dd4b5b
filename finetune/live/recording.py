"""A recording of what is played: 24-bit WAV with the settings in its tags, and every later move beside it as JSON.

The file grows on disk while the music plays, under another name, and gets its own when it is whole.
"""

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from adapters.audio_out import MAX_WAV_COMMENT_BYTES, take_name
from configs.errors import UserError
from data_prep.safe_write import part_of, remove, storing, write_text

LONGEST_SEC = 7200.0
"""Two hours: 2 GB in stereo at 48 kHz, half of what a WAV file can hold. A longer session goes on in another file."""
MAX_MOVES = 100_000
AGAIN = "press record again."
SAMPLE_BYTES = 3


class Recording:
    """One WAV file that is being written. It belongs to one thread.

    Raises:
        UserError: the disk is full or refuses.
    """

    def __init__(self, folder: Path, name: str, rate_hz: int, channels: int, made_by: Mapping[str, Any]) -> None:
        import soundfile

        self.path = take_name(folder, name, "wav")
        self.part = part_of(self.path)
        self.rate_hz = rate_hz
        self.samples = 0
        self.made_by = dict(made_by)
        self.moves: list[dict[str, Any]] = []
        try:
            with storing(self.path):
                self._file = soundfile.SoundFile(self.part, "w", rate_hz, channels, subtype="PCM_24", format="WAV")
                self._file.title, self._file.software = name, "woodshed live"
                self._file.comment = _comment(self.made_by)
        except BaseException:
            self._forget()
            raise

    @property
    def seconds(self) -> float:
        """Length so far."""
        return self.samples / self.rate_hz

    def write(self, audio: Float[np.ndarray, "C N"]) -> None:
        """Append a chunk; samples beyond full scale are limited to it.

        Raises:
            UserError: the disk is full or refuses; what was written before is kept by `finish`.
        """
        with self._storing(SAMPLE_BYTES * audio.size):
            self._file.write(np.clip(audio, -1.0, 1.0).T)
        self.samples += audio.shape[1]

    def note(self, what: Mapping[str, Any]) -> None:
        """A control was moved: it is written down with the second of the recording."""
        if len(self.moves) < MAX_MOVES:
            self.moves.append({"at_sec": round(self.seconds, 3), **what})

    def finish(self) -> Path:
        """Close the file and give it its name.

        Raises:
            UserError: the disk refuses; it says where the music is.
        """
        try:
            with self._storing(SAMPLE_BYTES * self.rate_hz):
                self._file.close()
                self.part.replace(self.path)
        except UserError as error:
            where = f"{error.where}; what was recorded is in {self.part}"
            raise UserError(error.what, where=where, fix=error.fix) from error
        return self.path

    def write_moves(self) -> None:
        """The settings and every move, as JSON beside the file.

        Raises:
            UserError: the disk is full or refuses.
        """
        story = {**self.made_by, "duration_sec": round(self.seconds, 3), "moves": self.moves}
        text = json.dumps(story, ensure_ascii=False, indent=1) + "\n"
        write_text(self.path.with_suffix(".json"), text, again=AGAIN)

    @contextmanager
    def _storing(self, n_bytes: int) -> Iterator[None]:
        import soundfile

        with storing(self.path, again=AGAIN):
            try:
                yield
            except soundfile.LibsndfileError as error:  # says no more than "System error"
                no_room = shutil.disk_usage(self.path.parent).free < 2 * n_bytes
                raise OSError(errno.ENOSPC if no_room else errno.EIO, str(error)) from error

    def _forget(self) -> None:
        with suppress(OSError):
            remove(self.part)
            if self.path.stat().st_size == 0:
                remove(self.path)


def _comment(made_by: Mapping[str, Any]) -> str:
    """The settings as JSON; libsndfile keeps about 2 KiB: prompts are cut first, and the JSON file has them whole."""
    comment = json.dumps(made_by, ensure_ascii=False)
    if len(comment.encode()) > MAX_WAV_COMMENT_BYTES:
        kept = {name: value for name, value in made_by.items() if name not in ("prompts", "story")}
        comment = json.dumps({**kept, "prompts": "see the .json file beside this one"}, ensure_ascii=False)
    return comment.encode()[:MAX_WAV_COMMENT_BYTES].decode(errors="ignore")
