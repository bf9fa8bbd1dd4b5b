"""What must be known of a track before anything is made of it, in one pass: length, hash, levels, peak, clipping.

The hash names the music and not the file: sha256 over the decoded samples as 16-bit integers at the file's own rate,
one channel where both are equal. The same recording as WAV and FLAC, or mono stored as stereo, has one hash; a lossy
copy has another.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from data_prep.decode import AudioError, Source, clock, stream

WINDOW_SEC = 0.05
QUIETEST_DB = -200.0
_LOUDEST = 64.0
_CLIPPED = 0.9999


@dataclass(frozen=True)
class TrackScan:
    """One track, measured. Every field is plain data, so that `dataclasses.asdict` and JSON keep it."""

    duration_sec: float
    sample_rate_hz: int
    channels: int
    audio_sha256: str
    window_sec: float
    """Length of the stretch that each entry of `levels_db` covers; the last one may be shorter."""
    levels_db: tuple[float, ...]
    """Root mean square of each window's loudest channel, in dB relative to full scale, rounded to 0.1."""
    peak: float
    """Largest absolute sample; 1 is full scale."""
    clipped_share: float
    """Share of samples within 0.01 % of full scale or beyond it: a loud master has some, above 0.001 it is audible."""
    flags: tuple[str, ...] = ()
    """What is odd but no reason to refuse it: `bad_packets:3`, `clipped`."""


def measure(path: Path, max_sec: float | None = None) -> TrackScan:
    """Decode a whole file once and measure it.

    Raises:
        AudioError: it does not decode (see `decode.stream`), lasts longer than `max_sec`, or its samples are far
            outside full scale.
    """
    source, totals = Source(), _Totals()
    for block in stream(path, source=source, block_sec=1.0):
        totals.add(block, source.sample_rate_hz)
        if max_sec is not None and source.duration_sec > max_sec:
            raise AudioError(f"longer than {clock(max_sec)}")
    if totals.peak > _LOUDEST:
        raise AudioError(f"samples {totals.peak:.3g} times full scale: written in another scale, or damaged")
    return totals.result(source)


class _Totals:
    """Running sums over the blocks of one track."""

    def __init__(self) -> None:
        self.peak = 0.0
        self.samples = 0
        self.clipped = 0
        self.levels: list[np.ndarray] = []
        self.rest = np.zeros((0, 0), np.float32)
        self.hashes = hashlib.sha256(), hashlib.sha256()  # the first channel alone, all of them
        self.same = True
        self.window = 0

    def add(self, block: Float[np.ndarray, "C N"], rate_hz: int) -> None:
        self.window = max(1, round(WINDOW_SEC * rate_hz))
        magnitude = np.abs(block)
        self.peak = max(self.peak, float(magnitude.max(initial=0.0)))
        self.clipped += int((magnitude >= _CLIPPED).sum())
        self.samples += block.size
        self._hash(_as_int16(block))
        joined = block if not self.rest.size else np.concatenate([self.rest, block], axis=1)
        full = joined.shape[1] - joined.shape[1] % self.window
        self.levels.append(_levels_db(joined[:, :full], self.window))
        self.rest = joined[:, full:]

    def _hash(self, ints: Int[np.ndarray, "C N"]) -> None:
        self.same = self.same and bool((ints == ints[:1]).all())
        self.hashes[0].update(np.ascontiguousarray(ints[0]).tobytes())
        self.hashes[1].update(np.ascontiguousarray(ints.T).tobytes())

    def result(self, source: Source) -> TrackScan:
        if self.rest.shape[-1]:
            self.levels.append(_levels_db(self.rest, self.rest.shape[1]))
        levels = np.concatenate(self.levels).astype(np.float64)
        share = self.clipped / max(1, self.samples)
        flags = [f"bad_packets:{source.bad_packets}"] if source.bad_packets else []
        return TrackScan(
            duration_sec=source.duration_sec,
            sample_rate_hz=source.sample_rate_hz,
            channels=source.channels,
            audio_sha256=self._digest(source),
            window_sec=self.window / source.sample_rate_hz,
            levels_db=tuple(np.round(levels, 1).tolist()),
            peak=self.peak,
            clipped_share=share,
            flags=tuple(flags + (["clipped"] if share > 0.001 else [])),
        )

    def _digest(self, source: Source) -> str:
        channels = 1 if self.same else source.channels
        body = self.hashes[0 if self.same else 1].hexdigest()
        return hashlib.sha256(f"{source.sample_rate_hz} {channels} {body}".encode()).hexdigest()


def _as_int16(block: Float[np.ndarray, "C N"]) -> Int[np.ndarray, "C N"]:
    return np.clip(np.rint(block * 32768.0), -32768, 32767).astype("<i2")


def _levels_db(audio: Float[np.ndarray, "C N"], window: int) -> Float[np.ndarray, " W"]:
    """RMS in dB of consecutive windows, the loudest channel's; digital silence is QUIETEST_DB."""
    if not audio.size:
        return np.zeros(0)
    power = np.square(audio, dtype=np.float64).reshape(len(audio), -1, window).mean(axis=-1).max(axis=0)  # [W]
    return np.maximum(10 * np.log10(np.maximum(power, 1e-30)), QUIETEST_DB)
