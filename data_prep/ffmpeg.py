"""Whatever FFmpeg reads, through PyAV (its wheels carry FFmpeg): frames of float32, and the judgement on the file.

Only the audio's own stream is read: cover art and video are skipped, and where the first audio stream yields nothing
the next one is tried.

What a damaged file means: packets that do not decode are left out and counted, and up to 1 % of them (at least one)
are tolerated, as a player would. A file with more, one that stops in the middle, or one that yields far less than its
container declares, is refused with the place; see `whole` for how a cut is noticed. Playlists are refused and no
protocol but `file` is allowed, so a file among the songs cannot make FFmpeg open another one or the network.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
import numpy as np
from jaxtyping import Float

from data_prep.audio_file import AudioError, AudioInfo, Source, check_shape, clock
from data_prep.libsndfile import customary_names
from data_prep.whole import chain_that_changes, check_ends, declared_sec, falls_short

av.logging.set_level(av.logging.PANIC)  # FFmpeg's own remarks never reach the terminal; ours say what matters

_PLAYLISTS = {"hls", "applehttp", "dash", "concat", "concatf", "sdp", "rtsp", "imf", "imf_ext"}
_CUT_TELLS_NOTHING = {"mp3", "aac"}  # trailing tags make a last packet that is no audio
_FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}


def probe(path: Path) -> AudioInfo:
    """Read a file's header.

    Raises:
        AudioError: it is no audio file, or there is no audio in it.
        OSError: it cannot be read.
    """
    with _open(path) as container:
        stream = container.streams.audio[0]
        rate, channels = stream.sample_rate or 0, stream.codec_context.channels or 0
        check_shape(rate, channels)
        tags = {**container.metadata, **stream.metadata}
        name = stream.codec_context.name
        return AudioInfo(
            declared_sec(path, container, stream), rate, channels, name, {k.lower(): v for k, v in tags.items()}
        )


def frames(path: Path, source: Source) -> Iterator[tuple[Float[np.ndarray, "C _"], tuple[str, ...]]]:
    """The frames of the first audio stream that yields any, each with its channels' names; fills in `source`.

    Raises:
        AudioError: before the first one, FFmpeg does not read the file; after some, it is damaged or cut off.
        OSError: it cannot be read.
    """
    with _open(path) as container:
        count = len(container.streams.audio)
    for index in range(count):
        with _open(path) as container:
            reader = _Reader(path, container, container.streams.audio[index], source)
            for frame in reader.frames():
                yield _samples(frame), _names(frame)
            if reader.packets_good:
                reader.judge()
                return
    raise AudioError("nothing in it decodes")


class _Reader:
    """Decodes one stream of an open container and keeps count of what failed."""

    def __init__(self, path: Path, container: Any, stream: Any, source: Source) -> None:
        self.path, self.container, self.stream, self.source = path, container, stream, source
        self.packets_good = 0
        self.first_bad_sec = 0.0
        self.last_was_bad = False

    def frames(self) -> Iterator[av.AudioFrame]:
        try:
            for packet in self.container.demux(self.stream):
                yield from self._decoded(packet)
        except (OSError, MemoryError):
            raise
        except av.error.FFmpegError as error:
            if not self.packets_good:
                return
            at = clock(self.source.duration_sec)
            joined = chain_that_changes(self.path)
            raise AudioError(joined or f"truncated or corrupt at {at}: {error.strerror}") from error

    def _decoded(self, packet: Any) -> Iterator[av.AudioFrame]:
        try:
            frames = packet.decode()
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError:  # whatever a damaged packet makes a decoder say, it costs this packet only
            self._count_bad()
            return
        if packet.size:  # the empty packet at the end only empties the decoder
            self.last_was_bad = False
        for frame in frames:
            if not frame.samples:
                continue
            self._count_good(frame)
            yield frame

    def _count_bad(self) -> None:
        if not self.source.bad_packets:
            self.first_bad_sec = self.source.duration_sec
        self.source.bad_packets += 1
        self.last_was_bad = True

    def _count_good(self, frame: av.AudioFrame) -> None:
        self.packets_good += 1
        source = self.source
        if not source.sample_rate_hz:
            check_shape(frame.sample_rate, len(frame.layout.channels))
            source.sample_rate_hz, source.names = frame.sample_rate, _names(frame)
        elif frame.sample_rate != source.sample_rate_hz:
            at = clock(source.duration_sec)
            changes = f"changes its sample rate at {at}: {source.sample_rate_hz} to {frame.sample_rate} Hz"
            raise AudioError(chain_that_changes(self.path) or changes)
        source.samples += frame.samples

    def judge(self) -> None:
        """Whether what decoded is the whole recording.

        Raises:
            AudioError: it is not.
        """
        source, kind = self.source, self.container.format.name
        check_ends(self.path, source.duration_sec)
        declared = declared_sec(self.path, self.container, self.stream)
        if falls_short(source.duration_sec, declared):
            ends, said = clock(source.duration_sec), clock(declared or 0)
            raise AudioError(f"truncated at {ends}: the file says it lasts {said}")
        if self.last_was_bad and kind not in _CUT_TELLS_NOTHING:
            raise AudioError(f"truncated at {clock(source.duration_sec)}: the file ends in the middle of its data")
        if source.bad_packets > max(1, 0.01 * self.packets_good):
            total = source.bad_packets + self.packets_good
            where = clock(self.first_bad_sec)
            raise AudioError(f"corrupt from {where}: {source.bad_packets} of {total} packets do not decode")


def _open(path: Path) -> Any:
    """Open a file that has audio in it, by content and never by name."""
    try:
        if path.stat().st_size == 0:
            raise AudioError("the file is empty")
        container = av.open(str(path.absolute()), metadata_errors="replace", options={"protocol_whitelist": "file"})
    except av.error.InvalidDataError as error:
        raise AudioError("not audio, or damaged at its beginning: FFmpeg does not recognise it") from error
    except (OSError, MemoryError):
        raise
    except (av.error.FFmpegError, ValueError) as error:
        raise AudioError(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    if container.format.name in _PLAYLISTS:
        container.close()
        raise AudioError("a playlist, not a recording")
    if not container.streams.audio:
        container.close()
        raise AudioError("no audio in it")
    return container


def _samples(frame: av.AudioFrame) -> Float[np.ndarray, "C N"]:
    raw = frame.to_ndarray()
    audio = raw if frame.format.is_planar else raw.reshape(-1, len(frame.layout.channels)).T  # [C, N]
    return _scaled(audio, frame.format.name.removesuffix("p"))


def _names(frame: av.AudioFrame) -> tuple[str, ...]:
    """The places of its channels; the customary ones for a number of channels without places."""
    names = tuple(channel.name for channel in frame.layout.channels)
    return customary_names(len(names)) if frame.layout.name.endswith("channels") else names


def _scaled(audio: np.ndarray, kind: str) -> Float[np.ndarray, "C N"]:
    if kind in ("flt", "dbl"):
        return audio.astype(np.float32)
    centred = audio.astype(np.float32) - (128.0 if kind == "u8" else 0.0)
    return centred / np.float32(_FULL_SCALE[kind])
