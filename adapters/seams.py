"""Where two recordings meet: cross-fades, loops that come round without a seam, music that goes on from a file."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from configs.errors import UserError
from data_prep.codec.port import Codec

JOIN_SEC = 0.05
"""Cross-fade between a recording and what the codec makes of the same moment."""


@dataclass(frozen=True)
class Loop:
    """A number of bars at a tempo. One bar more is played before it, so that the loop begins inside the music."""

    bpm: float
    bars: int
    sample_rate_hz: int
    beats_per_bar: int = 4

    @property
    def samples(self) -> int:
        """Exact length of the loop."""
        return round(self.bars * self.beats_per_bar * 60 / self.bpm * self.sample_rate_hz)

    @property
    def lead_samples(self) -> int:
        """The bar before it."""
        return round(self.beats_per_bar * 60 / self.bpm * self.sample_rate_hz)

    @property
    def fade_samples(self) -> int:
        """Half a beat, or a quarter of a very short loop."""
        return min(round(30 / self.bpm * self.sample_rate_hz), self.samples // 4)

    @property
    def duration_sec(self) -> float:
        """How much must be played to cut the loop out of it."""
        return (self.lead_samples + self.samples + self.fade_samples) / self.sample_rate_hz

    def cut(self, audio: Float[Tensor, "C N"]) -> Float[Tensor, "C n"]:
        """The loop. Its last sample is followed, as it comes round, by the very sample that was played next.

        What was played behind the loop's end fades out over its beginning, which fades in.
        """
        start, end, fade = self.lead_samples, self.lead_samples + self.samples, self.fade_samples
        assert audio.shape[1] >= end + fade
        loop = audio[:, start:end].clone()
        loop[:, :fade] = cross_fade(audio[:, end : end + fade], loop[:, :fade])
        return loop


def cross_fade(out: Float[Tensor, "C n"], into: Float[Tensor, "C n"]) -> Float[Tensor, "C n"]:
    """Equal power: for music that is not the same. Begins exactly with `out`."""
    angle = torch.arange(out.shape[1]) / max(out.shape[1], 1) * (torch.pi / 2)
    return out * angle.cos() + into * angle.sin()


@dataclass(frozen=True)
class Continuation:
    """A recording up to a moment: the audio itself, and the codes of its last part that the model hears."""

    audio: Float[Tensor, "C N"]
    codes: Int[np.ndarray, "K P"]
    sample_rate_hz: int

    def join(self, played: Float[Tensor, "C N"], heard_samples: int) -> Float[Tensor, "C _"]:
        """The recording as it is, then the new music. `played` begins with the codec's version of `heard_samples`.

        The codec's version takes over in the last moments of the recording; both are the same music there, so a
        straight fade keeps the level.
        """
        fade = min(round(JOIN_SEC * self.sample_rate_hz), heard_samples, self.audio.shape[1])
        rising = (torch.arange(fade) + 1) / (fade + 1)
        own = self.audio[:, self.audio.shape[1] - fade :]
        coded = played[:, heard_samples - fade : heard_samples]
        mixed = own * (1 - rising) + coded * rising
        return torch.cat([self.audio[:, : self.audio.shape[1] - fade], mixed, played[:, heard_samples:]], dim=1)


def continue_from(path: Path, from_sec: float | None, codec: Codec, longest_sec: float) -> Continuation:
    """Read a recording up to `from_sec` (None: its end), in the codec's rate and channels, cut to whole frames.

    Raises:
        UserError: it cannot be read, or ends before `from_sec`, or nothing is left to continue.
    """
    from data_prep.decode import AudioError, stream

    try:
        audio = _first(
            stream(path, sample_rate_hz=codec.sample_rate_hz, channels=codec.channels), from_sec, codec.sample_rate_hz
        )
    except (AudioError, OSError) as error:
        raise UserError(f"cannot continue {path.name}: {error}", where=str(path), fix="give an audio file") from error
    have_sec = audio.shape[1] / codec.sample_rate_hz
    if from_sec is not None and have_sec + 1e-3 < from_sec:
        raise UserError(
            f"{path.name} is {have_sec:.1f} s long", fix=f"give --from a moment before that, not {from_sec:g}"
        )
    audio = audio[:, : audio.shape[1] // codec.hop_samples * codec.hop_samples]
    if audio.shape[1] == 0:
        raise UserError(
            f"there is nothing to continue in {path.name}", where=str(path), fix="give --from a later moment"
        )
    longest = round(longest_sec * codec.frame_rate) * codec.hop_samples
    codes = codec.encode([audio[:, -longest:]])[0]
    return Continuation(audio, codes, codec.sample_rate_hz)


def _first(blocks: Iterable[Float[np.ndarray, "C _"]], seconds: float | None, rate_hz: int) -> Float[Tensor, "C N"]:
    """The first seconds of a stream of blocks; reads no further."""
    wanted = None if seconds is None else round(seconds * rate_hz)
    kept, have = [], 0
    for block in blocks:
        kept.append(block)
        have += block.shape[1]
        if wanted is not None and have >= wanted:
            break
    audio = np.concatenate(kept, axis=1) if kept else np.zeros((1, 0), np.float32)
    return torch.from_numpy(audio[:, :wanted].copy())
