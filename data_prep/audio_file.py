"""What is known of an audio file, and the error that says why one cannot be used."""

from dataclasses import dataclass, field

_RATES_HZ = range(1_000, 768_001)
_MAX_CHANNELS = 64


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
    names: tuple[str, ...] = ()
    """FFmpeg's short name of each channel: FL, FR, FC, LFE, …"""
    samples: int = 0
    bad_packets: int = 0
    """Packets that did not decode and were left out."""

    @property
    def channels(self) -> int:
        """How many the file has; 0 before anything was decoded."""
        return len(self.names)

    @property
    def duration_sec(self) -> float:
        """How much was decoded so far."""
        return self.samples / self.sample_rate_hz if self.sample_rate_hz else 0.0


def clock(seconds: float) -> str:
    """Seconds as people say them: 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def check_shape(rate_hz: int, channels: int) -> None:
    """Whether a rate and a number of channels can be those of a recording.

    Raises:
        AudioError: they cannot.
    """
    if rate_hz not in _RATES_HZ:
        raise AudioError(f"claims a sample rate of {rate_hz} Hz")
    if not 1 <= channels <= _MAX_CHANNELS:
        raise AudioError(f"claims {channels} channels")
