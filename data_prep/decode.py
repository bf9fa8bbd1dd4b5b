"""Any audio FFmpeg reads → float32 blocks, in bounded memory however long the file is.

Decoding goes through PyAV (its wheels carry FFmpeg). Sample formats are scaled here, channels are mixed in `remix`,
rates changed once in `resample`. Only the audio's own stream is read: cover art and video are skipped, and where the
first audio stream yields nothing the next one is tried. Time stamps are not used: a recording is its samples, one
after the other.

What a damaged file means: packets that do not decode are left out and counted, and up to 1 % of them (at least one)
are tolerated, as a player would. A file with more, one that stops in the middle, or one that yields far less than its
container declares, is refused with the place; see `whole` for how a cut is noticed. Playlists are refused and no
protocol but `file` is allowed, so a file among the songs cannot make FFmpeg open another one or the network.

An AudioError is a verdict on what the file holds, and the same next time. Where the machine fails instead (the file is
gone, the disk or the memory gives out), that OSError or MemoryError comes through as it is; PyAV's own kinds of both
are among them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
import numpy as np
from jaxtyping import Float

from data_prep.remix import remix
from data_prep.resample import rechunk, resample
from data_prep.whole import declared_sec, ends_inside, falls_short

av.logging.set_level(av.logging.PANIC)  # FFmpeg's own remarks never reach the terminal; ours say what matters

_RATES_HZ = range(1_000, 768_001)
_MAX_CHANNELS = 64
_PLAYLISTS = {"hls", "applehttp", "dash", "concat", "concatf", "sdp", "rtsp", "imf", "imf_ext"}
_CUT_TELLS_NOTHING = {"mp3", "aac"}  # trailing tags make a last packet that is no audio
_BLOCK_SAMPLES = 65_536
_LAYOUTS = {
    2: ("FL", "FR"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}
_FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}


class AudioError(Exception):
    """A file that cannot be used; `why` is the reason in plain words, as it stands in rejected.jsonl."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def reason(error: AudioError | OSError) -> str:
    """Why a file cannot be used, in plain words: what is wrong with it, or what the system says about reading it."""
    return error.why if isinstance(error, AudioError) else f"cannot be read: {error.strerror or error}"


@dataclass(frozen=True)
class AudioInfo:
    """What a file says of itself; `duration_sec` is None where it states no length that can be believed."""

    duration_sec: float | None
    sample_rate_hz: int
    channels: int
    codec: str
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Source:
    """What was learned of a file while it was decoded: filled in by `stream` as it goes, complete at its end."""

    sample_rate_hz: int = 0
    channels: int = 0
    samples: int = 0
    bad_packets: int = 0
    """Packets that did not decode and were left out."""

    @property
    def duration_sec(self) -> float:
        """How much was decoded so far."""
        return self.samples / self.sample_rate_hz if self.sample_rate_hz else 0.0


def probe(path: Path) -> AudioInfo:
    """Read a file's header.

    Raises:
        AudioError: it is no audio file, or there is no audio in it.
        OSError: it cannot be read.
    """
    with _open(path) as container:
        stream = container.streams.audio[0]
        rate, channels = stream.sample_rate or 0, stream.codec_context.channels or 0
        _check_shape(rate, channels)
        tags = {**container.metadata, **stream.metadata}
        name = stream.codec_context.name
        return AudioInfo(
            declared_sec(path, container, stream), rate, channels, name, {k.lower(): v for k, v in tags.items()}
        )


def stream(
    path: Path,
    *,
    sample_rate_hz: int | None = None,
    channels: int | None = None,
    block_sec: float = 10.0,
    source: Source | None = None,
) -> Iterator[Float[np.ndarray, "C _"]]:
    """Decode a file into blocks [C, N] of `block_sec` seconds, the last one shorter; full scale is ±1.

    None keeps the file's own rate, or its own channels. Give a `source` to learn about the file on the way.

    Raises:
        AudioError: nothing decodes, the file is cut off or corrupt, or it holds samples that are not numbers. It may
            come after blocks were handed out: what is made of them then has to be thrown away.
        OSError: it cannot be read, or not to its end.
    """
    source = source if source is not None else Source()
    native = _native_blocks(path, channels, source)
    first = next(native)
    to_hz = sample_rate_hz or source.sample_rate_hz
    blocks = resample(_chained(first, native), source.sample_rate_hz, to_hz)
    yield from rechunk(blocks, max(1, round(block_sec * to_hz)))


def clock(seconds: float) -> str:
    """Seconds as people say them: 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _chained(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _native_blocks(path: Path, channels: int | None, source: Source) -> Iterator[Float[np.ndarray, "C _"]]:
    """Blocks at the file's own rate. Small packets are gathered first: the steps after this cost per block."""
    held: list[np.ndarray] = []
    count = 0
    for frame in _frames(path, source):
        audio = _mixed(frame, channels, source)
        held.append(audio)
        count += audio.shape[1]
        if count >= _BLOCK_SAMPLES:
            yield _checked(np.concatenate(held, axis=1), source)
            held, count = [], 0
    if held:
        yield _checked(np.concatenate(held, axis=1), source)


def _frames(path: Path, source: Source) -> Iterator[av.AudioFrame]:
    """The frames of the first audio stream that yields any, then the judgement whether that was all of it."""
    with _open(path) as container:
        count = len(container.streams.audio)
    for index in range(count):
        with _open(path) as container:
            reader = _Reader(path, container, container.streams.audio[index], source)
            yield from reader.frames()
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
            raise AudioError(f"truncated or corrupt at {at}: {error.strerror}") from error

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
            _check_shape(frame.sample_rate, len(frame.layout.channels))
            source.sample_rate_hz, source.channels = frame.sample_rate, len(frame.layout.channels)
        elif frame.sample_rate != source.sample_rate_hz:
            at = clock(source.duration_sec)
            raise AudioError(f"changes its sample rate at {at}: {source.sample_rate_hz} to {frame.sample_rate} Hz")
        source.samples += frame.samples

    def judge(self) -> None:
        """Whether what decoded is the whole recording.

        Raises:
            AudioError: it is not.
        """
        source, kind = self.source, self.container.format.name
        declared = declared_sec(self.path, self.container, self.stream)
        if falls_short(source.duration_sec, declared):
            ends, said = clock(source.duration_sec), clock(declared or 0)
            raise AudioError(f"truncated at {ends}: the file says it lasts {said}")
        if ends_inside(self.path) or (self.last_was_bad and kind not in _CUT_TELLS_NOTHING):
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


def _check_shape(rate_hz: int, channels: int) -> None:
    if rate_hz not in _RATES_HZ:
        raise AudioError(f"claims a sample rate of {rate_hz} Hz")
    if not 1 <= channels <= _MAX_CHANNELS:
        raise AudioError(f"claims {channels} channels")


def _mixed(frame: av.AudioFrame, channels: int | None, source: Source) -> Float[np.ndarray, "C N"]:
    """One frame as float32 [C, N]; one of another layout is brought to the first one's channels."""
    names = [channel.name for channel in frame.layout.channels]
    raw = frame.to_ndarray()
    audio = raw if frame.format.is_planar else raw.reshape(-1, len(names)).T  # [C, N]
    scaled = _scaled(audio, frame.format.name.removesuffix("p"))
    if frame.layout.name.endswith("channels"):  # a number of channels without places: the customary ones
        names = list(_LAYOUTS.get(len(names), names))
    wanted = channels if channels is not None or len(names) == source.channels else min(source.channels, 2)
    return remix(scaled, names, wanted)


def _scaled(audio: np.ndarray, kind: str) -> Float[np.ndarray, "C N"]:
    if kind in ("flt", "dbl"):
        return audio.astype(np.float32)
    centred = audio.astype(np.float32) - (128.0 if kind == "u8" else 0.0)
    return centred / np.float32(_FULL_SCALE[kind])


def _checked(audio: Float[np.ndarray, "C N"], source: Source) -> Float[np.ndarray, "C N"]:
    if not np.isfinite(audio).all():
        raise AudioError(f"samples that are not numbers before {clock(source.duration_sec)}")
    return audio
