"""The context side of paired clips → codec tokens, sample for sample beside the target's, and degraded versions of it.

Separation leaves traces of each stem in the others: drums that were taken out of a song are still there, 20 to 40 dB
down, and a model would learn to read them. So training also gets the track with noise over those traces (SingSong,
Donahue et al. 2023, arXiv:2301.12662), with its highs cut, at another level, and with a stem missing.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float, Int

from data_prep.base_files import BaseFiles
from data_prep.cache import Cache, work_key
from data_prep.clips import Clip, Version, changed, read_clips
from data_prep.codec.port import Codec
from data_prep.codec.registry import load_base_codec
from data_prep.context_names import CONTEXT, degraded_name
from data_prep.decode import AudioError
from data_prep.pairs import Pair
from data_prep.progress import stage

CONTEXT_VERSION = 1
DEGRADED = 2
"""Degraded versions of each clip; in every second one a stem is missing."""
NOISE_DB = (-50.0, -35.0)
"""White noise, relative to full scale; SingSong's is at -40."""
LOW_PASS_HZ = (3000.0, 12_000.0)
GAIN_DB = (-9.0, 3.0)


def context_codes(
    clips: Sequence[Clip],
    pair: Pair,
    versions: Sequence[Version],
    files: BaseFiles,
    fingerprint: str,
    cache: Cache,
    *,
    device: torch.device,
) -> dict[str, dict[str, Int[np.ndarray, "T K"]]]:
    """Codes of every clip's context side by name and clip id, what is in the cache from there.

    Raises:
        UserError: a song changed since it was measured.
    """
    stems = {(version.track.source_sha256, version.stems): version for version in versions}
    sides = {clip.id: [stems[clip.version.track.source_sha256, stem.name] for stem in pair.context] for clip in clips}
    found: dict[str, dict[str, np.ndarray]] = {}
    with stage("context side", len(clips), unit="clips") as progress:
        todo = []
        for clip in clips:
            known = cache.read_tensors(CONTEXT, _key(clip, sides[clip.id], fingerprint, files))
            if known is None:
                todo.append(clip)
                continue
            found[clip.id] = known
            progress.advance(reused=True)
        codec = load_base_codec(files, device) if todo else None
        for clip, audio in _audio(todo, sides, codec) if codec else ():
            assert codec is not None
            made = {name: codec.encode([torch.from_numpy(side)])[0].T for name, side in _sides(clip, audio, codec)}
            found[clip.id] = {name: np.ascontiguousarray(codes) for name, codes in made.items()}
            cache.write_tensors(CONTEXT, _key(clip, sides[clip.id], fingerprint, files), found[clip.id])
            progress.advance()
    names = [CONTEXT, *(degraded_name(number) for number in range(1, DEGRADED + 1))]
    return {name: {clip.id: found[clip.id][name] for clip in clips} for name in names}


def notes(pair: Pair, codes: Mapping[str, Mapping[str, np.ndarray]], files: BaseFiles) -> dict[str, object]:
    """What prep.yaml says of it."""
    spec = files.spec
    told = {"pair": pair.name, "from": pair.context_name, "width": spec.n_codebooks, "rate_hz": spec.frame_rate}
    return {name: {**told, "clips": len(values), "version": CONTEXT_VERSION} for name, values in codes.items()}


def degrade(stems: Float[np.ndarray, "Q C N"], number: int, seed: str, sample_rate_hz: int) -> Float[np.ndarray, "C N"]:
    """Degraded version `number` (1, 2, …) of a sum of stems: every second one lacks a stem. The seed decides all."""
    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:8], "little"))
    missing = int(draw.integers(len(stems))) if number % 2 == 0 and len(stems) > 1 else None
    audio = stems.sum(axis=0) if missing is None else np.delete(stems, missing, axis=0).sum(axis=0)
    audio = low_pass(audio, draw.uniform(*LOW_PASS_HZ), sample_rate_hz) * 10 ** (draw.uniform(*GAIN_DB) / 20)
    noise = draw.standard_normal(audio.shape) * 10 ** (draw.uniform(*NOISE_DB) / 20)
    return (audio + noise).astype(np.float32)


def low_pass(audio: Float[np.ndarray, "C N"], cutoff_hz: float, sample_rate_hz: int) -> Float[np.ndarray, "C N"]:
    """Fourth-order Butterworth magnitude without any delay, so that both sides stay aligned: -3 dB at the cutoff."""
    spectrum = np.fft.rfft(audio, axis=1)
    hz = np.fft.rfftfreq(audio.shape[1], 1 / sample_rate_hz)
    return np.fft.irfft(spectrum / np.sqrt(1 + (hz / cutoff_hz) ** 8), audio.shape[1], axis=1)


def _sides(clip: Clip, stems: np.ndarray, codec: Codec) -> Iterator[tuple[str, np.ndarray]]:
    yield CONTEXT, stems.sum(axis=0).astype(np.float32)
    for number in range(1, DEGRADED + 1):
        yield degraded_name(number), degrade(stems, number, clip.id, codec.sample_rate_hz)


def _key(clip: Clip, side: Sequence[Version], fingerprint: str, files: BaseFiles) -> str:
    places = [Clip(version, clip.segment).place for version in side]
    return work_key(CONTEXT_VERSION, codec=fingerprint, channels=files.spec.channels, clip=clip.id, side=places)


def _audio(
    clips: Sequence[Clip], sides: Mapping[str, Sequence[Version]], codec: Codec
) -> Iterator[tuple[Clip, Float[np.ndarray, "Q C N"]]]:
    """Each clip with its context stems; a track's stems are decoded once, side by side."""
    for _, of_version in groupby(clips, key=lambda clip: clip.version.key):
        group = sorted(of_version, key=lambda clip: clip.segment.start_sec)
        segments, song = [clip.segment for clip in group], group[0].version.track.song.relative
        rate_hz, channels = codec.sample_rate_hz, codec.channels
        streams = [
            read_clips(v.path, segments, sample_rate_hz=rate_hz, channels=channels, fold=v.scan.fold)
            for v in sides[group[0].id]
        ]
        try:
            for clip, *stems in zip(group, *streams, strict=True):
                yield clip, np.stack(stems)
        except (AudioError, OSError) as error:
            raise changed(song, error) from error
