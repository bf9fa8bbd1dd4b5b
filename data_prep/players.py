"""The few seconds of sound in the report: some clips as they are, and as the codec gives them back."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from data_prep.base_files import BaseFiles
from data_prep.clips import Clip, read_clips
from data_prep.codec.port import Codec
from data_prep.codec.registry import load_base_codec
from data_prep.prepared import ClipRow
from data_prep.report import Player, ogg_uri
from data_prep.resample import resample
from data_prep.segment import Segment

MAX_PLAYERS = 4
EXCERPT_SEC = 8.0


def make_players(
    rows: Sequence[ClipRow],
    clips: Sequence[Clip],
    codes: Mapping[str, Int[np.ndarray, "K _"]],
    files: BaseFiles,
    device: torch.device,
) -> list[Player]:
    """Excerpts of clips spread over the dataset, at most one per version of a track while there are enough."""
    by_id = {clip.id: clip for clip in clips}
    codec = load_base_codec(files, device)
    return [_player(row, by_id[row.id], codes[row.id], codec) for row in _spread(rows)]


def _spread(rows: Sequence[ClipRow]) -> list[ClipRow]:
    """The middle clip of each version of a track, then evenly over these."""
    groups: dict[tuple[str, str], list[ClipRow]] = {}
    for row in rows:
        groups.setdefault((row.source, row.stems), []).append(row)
    middles = [group[len(group) // 2] for group in groups.values()]
    count = min(MAX_PLAYERS, len(middles))
    return [middles[round(i * (len(middles) - 1) / max(1, count - 1))] for i in range(count)]


def _player(row: ClipRow, clip: Clip, codes: Int[np.ndarray, "K T"], codec: Codec) -> Player:
    frames = min(codes.shape[1], round(EXCERPT_SEC * codec.frame_rate))
    excerpt = Segment(clip.segment.start_sec, frames / codec.frame_rate)
    version, rate_hz = clip.version, codec.sample_rate_hz
    heard = read_clips(version.path, [excerpt], sample_rate_hz=rate_hz, channels=codec.channels, fold=version.scan.fold)
    audio = next(heard)
    decoded = codec.decode(codes[:, :frames]).numpy()
    mel, sdr_db = _lost(audio, decoded, rate_hz)
    return Player(row, ogg_uri(audio, rate_hz), ogg_uri(decoded, rate_hz), mel, sdr_db)


def _lost(audio: Float[np.ndarray, "C N"], decoded: Float[np.ndarray, "C M"], rate_hz: int) -> tuple[float, float]:
    """Mel distance and SI-SDR in dB of what the codec gives back."""
    from data_prep.codec_measures.si_sdr import si_sdr_db
    from data_prep.codec_measures.spectral import MEASURE_RATE_HZ, mel_distance

    n_samples = min(audio.shape[1], decoded.shape[1])
    at_rate = (
        np.concatenate(list(resample([one[:, :n_samples]], rate_hz, MEASURE_RATE_HZ)), axis=1)
        for one in (decoded, audio)
    )
    ours, theirs = (torch.from_numpy(np.ascontiguousarray(one)) for one in at_rate)
    return mel_distance(ours, theirs), si_sdr_db(ours, theirs)
