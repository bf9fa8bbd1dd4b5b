"""Write audio: beside its place first, then renamed into it, so that a file that is there is whole."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float

from configs.errors import UserError
from data_prep.safe_write import missing_parents, part_of, remove, storing, take_back, written_beside

_WAV_LIMIT_BYTES = 4_000_000_000
_PROBE_BYTES = 2**20
_TAGS = ("title", "copyright", "software", "artist", "comment", "date", "album", "license", "tracknumber", "genre")


class FloatWavWriter:
    """Streams float32 blocks [C, N] into a WAV file that keeps samples beyond full scale; RF64 past 4 GB.

    A context manager: leaving it by an exception leaves nothing behind. `samples` is the expected length per channel,
    which decides between WAV and RF64.

    Raises:
        UserError: the disk is full or refuses.
    """

    def __init__(self, path: Path, sample_rate_hz: int, channels: int, samples: int) -> None:
        self.path = path
        self.part = part_of(path)
        self.kind = "WAV" if samples * channels * 4 < _WAV_LIMIT_BYTES else "RF64"
        self.rate_hz, self.channels = sample_rate_hz, channels

    def __enter__(self) -> "FloatWavWriter":
        import soundfile

        self.made = missing_parents(self.path)
        try:
            with storing(self.path), _plain_errors(self.part):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.file = soundfile.SoundFile(
                    self.part, "w", self.rate_hz, self.channels, subtype="FLOAT", format=self.kind
                )
        except BaseException:
            self._clean_up()
            raise
        return self

    def write(self, audio: Float[np.ndarray, "C N"]) -> None:
        """Append a block."""
        with storing(self.path), _plain_errors(self.part):
            self.file.write(audio.T)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with storing(self.path), _plain_errors(self.part):
                self.file.close()
                if kind is None:
                    self.part.replace(self.path)
        finally:
            self._clean_up()

    def _clean_up(self) -> None:
        with suppress(OSError):
            remove(self.part)
        take_back(self.made)


def write_audio(
    path: Path, audio: Float[np.ndarray, "C N"], sample_rate_hz: int, tags: Mapping[str, str] | None = None
) -> None:
    """Write a whole recording as .wav or .flac (24 bits, dithering not needed at that depth), tags included.

    Samples beyond full scale are limited to it. Tags are those that both formats have: title, artist, comment,
    software, …

    Raises:
        UserError: the name ends in neither .wav nor .flac, or the disk is full or refuses.
        ValueError: a tag neither format knows, or samples that are not numbers.
    """
    import soundfile

    kind = path.suffix.lower().lstrip(".").upper()
    if kind not in ("WAV", "FLAC"):
        raise UserError(
            f"cannot write {path.suffix or 'a file without an ending'}", where=str(path), fix="use .wav or .flac"
        )
    if unknown := set(tags or ()) - set(_TAGS):
        raise ValueError(f"no tag for {sorted(unknown)}; there are {', '.join(_TAGS)}")
    if not np.isfinite(audio).all():
        raise ValueError("samples that are not numbers cannot be written")
    with (
        written_beside(path, flush=True) as part,
        _plain_errors(part),
        soundfile.SoundFile(part, "w", sample_rate_hz, len(audio), subtype="PCM_24", format=kind) as file,
    ):
        _set_tags(file, tags or {})
        file.write(np.clip(audio, -1.0, 1.0).T)


def _set_tags(file: Any, tags: Mapping[str, str]) -> None:
    for name, text in tags.items():
        setattr(file, name, text)


@contextmanager
def _plain_errors(part: Path) -> Iterator[None]:
    """What libsndfile calls "System error." as the OSError that it is: one more write to the same file tells it."""
    import soundfile

    try:
        yield
    except soundfile.LibsndfileError as error:
        with part.open("ab") as file:
            file.write(bytes(_PROBE_BYTES))
        raise OSError(str(error)) from error
