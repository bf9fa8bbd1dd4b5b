"""The second opinion: files that FFmpeg does not recognise and libsndfile opens.

FFmpeg guesses a format from several clues and refuses some files whose headers are unusual, for instance Ogg Vorbis
whose set-up header makes its probe or its decoder give up; libsndfile also knows a few formats that FFmpeg does not
(Psion, MATLAB, Akai). It reads only the first recording of a chained Ogg file, so a chain is refused here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from data_prep.audio_file import AudioError, AudioInfo, Source, check_shape, clock
from data_prep.c_remarks import known_remarks_dropped
from data_prep.ogg import links
from data_prep.whole import check_ends, falls_short

_BLOCK_SAMPLES = 65_536
_LAYOUTS = {
    1: ("FC",),
    2: ("FL", "FR"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}


def customary_names(channels: int) -> tuple[str, ...]:
    """The places that so many channels have where a file does not say; numbers where there is no custom."""
    return _LAYOUTS.get(channels, tuple(f"CH{index}" for index in range(channels)))


def probe(path: Path) -> AudioInfo | None:
    """What libsndfile says of a file, or None where it does not open it either."""
    import soundfile

    try:
        with known_remarks_dropped(), soundfile.SoundFile(path) as file:
            check_shape(file.samplerate, file.channels)
            tags = {name: text for name, text in file.copy_metadata().items() if text}
            return AudioInfo(file.frames / file.samplerate, file.samplerate, file.channels, file.subtype.lower(), tags)
    except (soundfile.LibsndfileError, UnicodeDecodeError):
        return None


def blocks(path: Path, source: Source) -> Iterator[Float[np.ndarray, "C _"]]:
    """The samples of a file for which `probe` gave an answer, full scale ±1; fills in `source`.

    Raises:
        AudioError: it is cut off, breaks off, or is a chain of several recordings.
    """
    import soundfile

    if len(links(path)) > 1:
        raise AudioError("a chain of several recordings in one Ogg file: make a file of each")
    with known_remarks_dropped():
        opened = soundfile.SoundFile(path)
    with opened as file:
        source.sample_rate_hz, source.names = file.samplerate, customary_names(file.channels)
        stated = file.frames
        try:
            while len(block := _next_block(file)):
                source.samples += len(block)
                yield np.ascontiguousarray(block.T)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"truncated or corrupt at {clock(source.duration_sec)}: {error.error_string}") from error
    check_ends(path, source.duration_sec)
    if falls_short(source.duration_sec, stated / source.sample_rate_hz):
        ends, said = clock(source.duration_sec), clock(stated / source.sample_rate_hz)
        raise AudioError(f"truncated at {ends}: the file says it lasts {said}")


def _next_block(file: Any) -> Float[np.ndarray, "_ C"]:
    with known_remarks_dropped():
        return file.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)
