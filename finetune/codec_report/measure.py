"""Every passage through every contestant, measured against the recording at 44.1 kHz.

Everything is compared at one rate and in the contestant's own channels: what a codec cuts off above its bandwidth
counts against it, a mono codec is compared with the song's mono mix.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from data_prep.codec_measures.si_sdr import si_sdr_db
from data_prep.codec_measures.spectral import MEASURE_RATE_HZ, mel_distance, stft_distance
from data_prep.codec_measures.visqol import VISQOL_RATE_HZ, visqol_available, visqol_mos
from data_prep.progress import stage
from data_prep.resample import resample
from finetune.codec_report.contestants import CodecContestant, Contestant
from finetune.codec_report.passages import Passage


@dataclass(frozen=True)
class Measures:
    """Of one passage at one level, or a mean of these. Distances: lower is better; the others: higher."""

    mel_distance: float
    stft_distance: float
    si_sdr_db: float
    visqol: float | None


@dataclass
class Level:
    """What a contestant does with so many bits. `passages` holds one `Measures` per passage, in order."""

    name: str
    bitrate_bps: float = 0.0
    compression: float = 0.0
    bitrate_efficiency: float | None = None
    codes_in_use: float | None = None
    passages: list[Measures] = field(default_factory=list)

    @property
    def mean(self) -> Measures:
        """Over all passages."""
        scores = [one.visqol for one in self.passages if one.visqol is not None]
        return Measures(
            mel_distance=fmean(one.mel_distance for one in self.passages),
            stft_distance=fmean(one.stft_distance for one in self.passages),
            si_sdr_db=fmean(one.si_sdr_db for one in self.passages),
            visqol=fmean(scores) if scores else None,
        )


@dataclass
class Result:
    """A contestant's figures."""

    name: str
    sample_rate_hz: int
    channels: int
    frame_rate: float | None
    n_codebooks: int | None
    card: int | None
    levels: list[Level]

    def to_json(self) -> dict[str, Any]:
        """Everything, with means."""
        made = asdict(self)
        for level, held in zip(self.levels, made["levels"], strict=True):
            held["mean"] = asdict(level.mean)
        return made


def measure_all(contestants: Sequence[Contestant], passages: Sequence[Passage]) -> list[Result]:
    """Figures of each contestant, passage by passage."""
    levels = [[Level(name) for name in contestant.levels] for contestant in contestants]
    with stage("codecs", len(passages) * len(contestants), unit="readings") as progress:
        for passage in passages:
            for contestant, own in zip(contestants, levels, strict=True):
                for level, made in zip(own, play(contestant, passage), strict=True):
                    level.passages.append(_measures(made, passage.read(MEASURE_RATE_HZ, contestant.channels)))
                progress.advance()
    return [_result(contestant, own) for contestant, own in zip(contestants, levels, strict=True)]


def play(contestant: Contestant, passage: Passage) -> list[Float[np.ndarray, "C N"]]:
    """The passage as each level gives it back, at 44.1 kHz."""
    audio = passage.read(contestant.sample_rate_hz, contestant.channels)
    return [at_rate(made, contestant.sample_rate_hz, MEASURE_RATE_HZ) for made in contestant.play(audio)]


def at_rate(audio: Float[np.ndarray, "C _"], from_hz: int, to_hz: int) -> Float[np.ndarray, "C _"]:
    """Resampled in one go."""
    return np.concatenate(list(resample([audio], from_hz, to_hz)), axis=1)


def _measures(made: Float[np.ndarray, "C _"], wanted: Float[np.ndarray, "C _"]) -> Measures:
    n_samples = min(made.shape[1], wanted.shape[1])
    made, wanted = made[:, :n_samples], wanted[:, :n_samples]
    ours, theirs = (torch.from_numpy(np.ascontiguousarray(audio)) for audio in (made, wanted))
    mos = None
    if visqol_available():
        mos = visqol_mos(*(at_rate(audio, MEASURE_RATE_HZ, VISQOL_RATE_HZ) for audio in (made, wanted)))
    return Measures(mel_distance(ours, theirs), stft_distance(ours, theirs), si_sdr_db(ours, theirs), mos)


def _result(contestant: Contestant, levels: list[Level]) -> Result:
    spec = use = None
    if isinstance(contestant, CodecContestant):
        spec, use = contestant.codec.spec, contestant.use
    for number, level in enumerate(levels):
        level.bitrate_bps, level.compression = contestant.bitrate_bps(number), contestant.compression(number)
        if use is not None and isinstance(contestant, CodecContestant):
            count = contestant.counts[number]
            level.bitrate_efficiency, level.codes_in_use = use.bitrate_efficiency(count), use.codes_in_use(count)
    return Result(
        contestant.name,
        contestant.sample_rate_hz,
        contestant.channels,
        spec.frame_rate if spec else None,
        spec.n_codebooks if spec else None,
        spec.card if spec else None,
        levels,
    )
