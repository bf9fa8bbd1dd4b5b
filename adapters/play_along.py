"""A recording to play along with: read, turned into the codes that an adapter follows, and mixed with what it plays."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adapters.conditions import RowConditions
from configs.errors import UserError
from data_prep.codec.port import Codec
from data_prep.context_names import CONTEXT

STRETCH_SEC = 30.0
"""The recording is encoded in stretches of this length, as clips are in data preparation."""
PEAK = 10 ** (-1 / 20)
"""A mix that would go beyond -1 dB is turned down to it."""


@dataclass(frozen=True)
class ContextTrack:
    """The stretch that is played along with, at the codec's rate and channels, and its codes frame by frame."""

    name: str
    from_sec: float
    audio: Float[Tensor, "C N"]
    codes: Int[Tensor, "T K"]
    sample_rate_hz: int
    hop_samples: int

    @property
    def duration_sec(self) -> float:
        """Its length, to the sample."""
        return self.audio.shape[1] / self.sample_rate_hz

    @property
    def conditions(self) -> RowConditions:
        """What the model follows."""
        return {CONTEXT: self.codes}

    def cut(self, part: Float[Tensor, "C _"]) -> Float[Tensor, "C N"]:
        """What was played, as long as this to the sample: whole frames may be a little longer."""
        return part[:, : self.audio.shape[1]]

    def from_sample(self, first: int, n_samples: int) -> Float[Tensor, "C n_samples"]:
        """A stretch of the recording where it plays again and again, in whole frames: the last one ends in silence."""
        index = torch.arange(first, first + n_samples) % (len(self.codes) * self.hop_samples)
        return self.audio[:, index.clamp(max=self.audio.shape[1] - 1)] * (index < self.audio.shape[1])

    def mix(self, part: Float[Tensor, "C N"]) -> Float[Tensor, "C N"]:
        """Both at once, the part brought to this track's loudness (ITU-R BS.1770), the peak below full scale."""
        from data_prep.loudness import loudness_lufs

        own, played = (loudness_lufs(audio.numpy(), self.sample_rate_hz) for audio in (self.audio, part))
        gain_db = 0.0 if own is None or played is None else own - played
        both = self.audio + part * 10 ** (gain_db / 20)
        return both * min(1.0, PEAK / max(float(both.abs().max()), 1e-9))


def read_context(path: Path, from_sec: float | None, duration_sec: float | None, codec: Codec) -> ContextTrack:
    """Read a stretch of a recording in any format; `duration_sec` None: all that follows.

    Raises:
        UserError: it cannot be read, or is shorter than asked for.
    """
    start, rate_hz = from_sec or 0.0, codec.sample_rate_hz
    audio = _read(path, start, duration_sec, codec)
    have_sec = audio.shape[1] / rate_hz
    if audio.shape[1] < codec.hop_samples:
        raise UserError(f"{path.name} ends before second {start:g}", where=str(path), fix="give an earlier --from")
    if duration_sec is not None and have_sec + 1e-3 < duration_sec:
        behind = f" from second {start:g} on" if start else ""
        raise UserError(
            f"{path.name} has {have_sec:.1f} s{behind}, and {duration_sec:g} s were asked for",
            fix="leave --duration out to play along to its end",
        )
    stretch = round(STRETCH_SEC * codec.frame_rate) * codec.hop_samples
    codes = [codec.encode([part])[0] for part in audio.split(stretch, dim=1)]
    joined = torch.cat([torch.from_numpy(part.astype("int64")) for part in codes], dim=1)  # [K, T]
    return ContextTrack(path.name, start, audio, joined.T.contiguous(), rate_hz, codec.hop_samples)


def _read(path: Path, start_sec: float, duration_sec: float | None, codec: Codec) -> Float[Tensor, "C N"]:
    """The stretch, or what there is of it; what lies before is dropped while it is read."""
    from data_prep.decode import AudioError, stream

    rate_hz = codec.sample_rate_hz
    first = round(start_sec * rate_hz)
    last = None if duration_sec is None else first + round(duration_sec * rate_hz)
    kept, at = [torch.zeros(codec.channels, 0)], 0
    try:
        for block in stream(path, sample_rate_hz=rate_hz, channels=codec.channels):
            stop = block.shape[1] if last is None else last - at
            kept.append(torch.from_numpy(block[:, max(0, first - at) : max(0, stop)].copy()))
            at += block.shape[1]
            if last is not None and at >= last:
                break
    except (AudioError, OSError) as error:
        raise UserError(
            f"cannot play along with {path.name}: {error}", where=str(path), fix="give an audio file"
        ) from error
    return torch.cat(kept, dim=1)
