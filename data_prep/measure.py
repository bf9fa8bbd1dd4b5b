"""What must be known of a track before anything is made of it, in one pass: length, hash, levels, peak, clipping, and
how it is best brought to stereo and to one channel.

The hash names the music and not the file: sha256 over the decoded samples as 16-bit integers at the file's own rate,
one channel where both are equal. The same recording as WAV and FLAC, or mono stored as stereo, has one hash; a lossy
copy has another.

Levels are those of the audio that a codec is given, for one channel and for two (`TrackScan.for_channels`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from data_prep.decode import AudioError, Source, clock, stream
from data_prep.fold_down import FoldDown, to_stereo

WINDOW_SEC = 0.05
QUIETEST_DB = -200.0
_LOUDEST = 64.0
_CLIPPED = 0.9999
_CANCELLED_DB = -10.0
"""So far below the louder side, the mean of both has lost most of the music: sides correlated at -0.8 or less."""
_CANCELLED_SHARE = 0.1
_HEARD_DB = -60.0
_CENTRE_ALONE = 2.0**0.5


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
    """Root mean square of each window's loudest side in stereo, in dB relative to full scale, rounded to 0.1."""
    peak: float
    """Largest absolute sample; 1 is full scale."""
    clipped_share: float
    """Share of samples within 0.01 % of full scale or beyond it: a loud master has some, above 0.001 it is audible."""
    flags: tuple[str, ...] = ()
    """What is odd but no reason to refuse it: `bad_packets:3`, `clipped`."""
    mono_levels_db: tuple[float, ...] = ()
    """The same for the one channel that a mono codec is given; empty where it does not differ."""
    cancelled_share: float = 0.0
    """Share of the windows with sound in which the mean of both sides loses it."""
    fold: FoldDown = FoldDown()  # noqa: RUF009 (frozen)
    """How the file is brought to fewer channels."""

    def for_channels(self, channels: int) -> "TrackScan":
        """The same track as a codec of one or two channels is given it: its levels, and what was done about it."""
        if channels != 1:
            return self
        flags = self.flags
        if self.cancelled_share >= _CANCELLED_SHARE:
            flags += (f"cancels_in_mono:{self.fold.mono}_used",)
        return replace(self, levels_db=self.mono_levels_db or self.levels_db, flags=flags)


def scan_from_json(value: dict[str, Any]) -> TrackScan:
    """The inverse of `dataclasses.asdict` and JSON."""
    tuples = {name: tuple(value[name]) for name in ("levels_db", "flags", "mono_levels_db")}
    return TrackScan(**{**value, **tuples, "fold": FoldDown(**value["fold"])})


def measure(path: Path, max_sec: float | None = None) -> TrackScan:
    """Decode a whole file once and measure it.

    Raises:
        AudioError: it does not decode (see `decode.stream`), lasts longer than `max_sec`, or its samples are far
            outside full scale.
    """
    source, totals = Source(), _Totals()
    for block in stream(path, source=source, block_sec=1.0):
        totals.add(block, source)
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
        self.powers: list[np.ndarray] = []  # each [3, W]: of left, right and their mean
        self.rest = np.zeros((0, 0), np.float32)
        self.stereo_peak = 0.0
        self.only_centre = True
        self.hashes = hashlib.sha256(), hashlib.sha256()  # the first channel alone, all of them
        self.same = True
        self.window = 0

    def add(self, block: Float[np.ndarray, "C N"], source: Source) -> None:
        self.window = max(1, round(WINDOW_SEC * source.sample_rate_hz))
        magnitude = np.abs(block)
        self.peak = max(self.peak, float(magnitude.max(initial=0.0)))
        self.clipped += int((magnitude >= _CLIPPED).sum())
        self.samples += block.size
        self._hash(_as_int16(block))
        sides = block if len(block) == 1 else self._sides(block, source.names)
        joined = sides if not self.rest.size else np.concatenate([self.rest, sides], axis=1)
        full = joined.shape[1] - joined.shape[1] % self.window
        self.powers.append(_powers(joined[:, :full], self.window))
        self.rest = joined[:, full:]

    def _sides(self, block: Float[np.ndarray, "C N"], names: Sequence[str]) -> Float[np.ndarray, "2 N"]:
        if len(block) == 2:
            return block
        others = [index for index, name in enumerate(names) if name != "FC"]
        self.only_centre &= not block[others].any()
        sides = to_stereo(names) @ block
        self.stereo_peak = max(self.stereo_peak, float(np.abs(sides).max(initial=0.0)))
        return sides

    def _hash(self, ints: Int[np.ndarray, "C N"]) -> None:
        self.same = self.same and bool((ints == ints[:1]).all())
        self.hashes[0].update(np.ascontiguousarray(ints[0]).tobytes())
        self.hashes[1].update(np.ascontiguousarray(ints.T).tobytes())

    def result(self, source: Source) -> TrackScan:
        if self.rest.shape[-1]:
            self.powers.append(_powers(self.rest, self.rest.shape[1]))
        powers = np.concatenate(self.powers, axis=1)  # [3, W]
        gain = self._gain(source.channels)
        mono, cancelled = _mono(powers)
        loudest = _levels_db(powers[:2].max(axis=0) * gain**2)
        single = _levels_db(powers[{"left": 0, "right": 1, "mean": 2}[mono]] * gain**2)
        share = self.clipped / max(1, self.samples)
        flags = [f"bad_packets:{source.bad_packets}"] if source.bad_packets else []
        return TrackScan(
            duration_sec=source.duration_sec,
            sample_rate_hz=source.sample_rate_hz,
            channels=source.channels,
            audio_sha256=self._digest(source),
            window_sec=self.window / source.sample_rate_hz,
            levels_db=loudest,
            peak=self.peak,
            clipped_share=share,
            flags=tuple(flags + (["clipped"] if share > 0.001 else [])),
            mono_levels_db=() if single == loudest else single,
            cancelled_share=cancelled,
            fold=FoldDown(gain, mono),
        )

    def _gain(self, channels: int) -> float:
        """For the stereo fold: as loud as the standard has it, unless that clips; a centre alone is like mono."""
        if channels <= 2:
            return 1.0
        wanted = _CENTRE_ALONE if self.only_centre else 1.0
        return wanted / max(1.0, wanted * self.stereo_peak)

    def _digest(self, source: Source) -> str:
        channels = 1 if self.same else source.channels
        body = self.hashes[0 if self.same else 1].hexdigest()
        return hashlib.sha256(f"{source.sample_rate_hz} {channels} {body}".encode()).hexdigest()


def _as_int16(block: Float[np.ndarray, "C N"]) -> Int[np.ndarray, "C N"]:
    return np.clip(np.rint(block * 32768.0), -32768, 32767).astype("<i2")


def _powers(sides: Float[np.ndarray, "C N"], window: int) -> Float[np.ndarray, "3 W"]:
    """Mean squares of consecutive windows: of the left side, the right one, and the mean of both."""
    if not sides.size:
        return np.zeros((3, 0))
    three = np.stack([sides[0], sides[-1], sides.mean(axis=0)])
    return np.square(three, dtype=np.float64).reshape(3, -1, window).mean(axis=-1)


def _mono(powers: Float[np.ndarray, "3 W"]) -> tuple[Literal["mean", "left", "right"], float]:
    """What one channel is best made of, and in what share of the windows with sound the mean of both sides cancels.

    A side alone where the other one is digital silence, and the stronger one where much would cancel: a phase-inverted
    sum would do for a side that is inverted as a whole, but lose all that the two have in common otherwise.
    """
    left, right = (float(power) for power in powers[:2].sum(axis=1))
    stronger = "left" if left >= right else "right"
    loudest = powers[:2].max(axis=0)
    sounding = loudest > 10 ** (_HEARD_DB / 10)
    cancelled = sounding & (powers[2] < loudest * 10 ** (_CANCELLED_DB / 10))
    share = round(float(cancelled.sum() / max(1, sounding.sum())), 4)
    one_sided = min(left, right) < 1e-8 * max(left, right)
    return stronger if one_sided or share >= _CANCELLED_SHARE else "mean", share


def _levels_db(power: Float[np.ndarray, " W"]) -> tuple[float, ...]:
    """Mean squares in dB; digital silence is QUIETEST_DB."""
    levels = np.maximum(10 * np.log10(np.maximum(power, 1e-30)), QUIETEST_DB)
    return tuple(np.round(levels, 1).tolist())
