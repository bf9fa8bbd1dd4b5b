"""The demo's audio: songs through the codec with 1 to K codebooks, and the same prompts with and without the adapter.

Everything is written as a file the person can open; what is there already is not made again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from adapters.decode.strength_schedule import StrengthSchedule
from adapters.sampler import AdapterSpec, Sampler
from data_prep.base_files import BaseFiles
from data_prep.clips import read_clips
from data_prep.codec.port import Codec
from data_prep.codec.registry import load_base_codec
from data_prep.decode import stream
from data_prep.prepared import ClipRow, PreparedDataset
from data_prep.segment import Segment
from data_prep.write_audio import write_audio
from finetune.demo.plan import PROMPTS, SEED, SONGS_SHOWN, Plan
from finetune.sampling.line import recommended_strength

EXCERPT_SEC = 8.0


@dataclass(frozen=True)
class Take:
    """One recording on the page: what it is called, and its audio."""

    name: str
    path: Path
    audio: Float[np.ndarray, "C N"]
    sample_rate_hz: int


@dataclass(frozen=True)
class Row:
    """Recordings that belong side by side, under one heading."""

    title: str
    takes: list[Take]


def reconstructions(plan: Plan, files: BaseFiles) -> list[Row]:
    """A few clips as they are, and as the codec gives them back from its first 1, 2, … codebooks."""
    dataset = PreparedDataset(plan.dataset)
    codec = load_base_codec(files)
    return [_row(plan, dataset, codec, clip) for clip in _spread(dataset.clips())]


def _spread(clips: Sequence[ClipRow]) -> list[ClipRow]:
    """The first clip of some songs, evenly over all."""
    firsts = list({clip.source: clip for clip in reversed(clips)}.values())[::-1]
    count = min(SONGS_SHOWN, len(firsts))
    return [firsts[len(firsts) * number // count] for number in range(count)]


def _row(plan: Plan, dataset: PreparedDataset, codec: Codec, clip: ClipRow) -> Row:
    n_frames = min(clip.n_frames, round(EXCERPT_SEC * codec.frame_rate))
    codes = dataset.codes(clip.id)[:, :n_frames]
    excerpt = Segment(clip.start_sec, n_frames / codec.frame_rate)
    source = plan.songs / clip.source
    original = next(read_clips(source, [excerpt], sample_rate_hz=codec.sample_rate_hz, channels=codec.channels))
    stem = Path(clip.source).stem
    takes = [_kept(plan.takes / f"{stem} original.wav", "recording", original, codec)]
    for count in range(1, codec.n_codebooks // codec.channels + 1):
        audio = codec.decode(np.ascontiguousarray(codes[: count * codec.channels])).numpy()
        name = f"{count} codebook{'s' if count > 1 else ''}"
        takes.append(_kept(plan.takes / f"{stem} {name}.wav", name, audio, codec))
    return Row(stem, takes)


def comparisons(plan: Plan, files: BaseFiles) -> list[Row]:
    """Each prompt played by the base alone and by the base with the adapter, from the same seed."""
    rates = {"base": _play(plan, files, "base", []), "adapter": _play(plan, files, "adapter", [plan.run / "adapter"])}
    rows = []
    for number, prompt in enumerate(PROMPTS):
        takes = []
        for name, rate_hz in rates.items():
            path = _path(plan, name, number)
            takes.append(Take(name, path, _read(path), rate_hz))
        rows.append(Row(prompt, takes))
    return rows


def _play(plan: Plan, files: BaseFiles, name: str, adapters: Sequence[Path]) -> int:
    """Write the takes that are missing; returns their sample rate."""
    missing = [number for number in range(len(PROMPTS)) if not _path(plan, name, number).exists()]
    if missing:
        specs = [AdapterSpec(path, StrengthSchedule.constant(recommended_strength(path))) for path in adapters]
        sampler = Sampler.load(files, specs, plan.sample())
        prompts, seeds = [PROMPTS[number] for number in missing], [SEED + number for number in missing]
        for number, take in zip(missing, sampler.sample(prompts, seeds=seeds), strict=True):
            write_audio(_path(plan, name, number), take.waveform.numpy(), files.spec.sample_rate_hz)
    return files.spec.sample_rate_hz


def _path(plan: Plan, name: str, number: int) -> Path:
    return plan.takes / f"prompt {number + 1} {name}.wav"


def _read(path: Path) -> Float[np.ndarray, "C N"]:
    return np.concatenate(list(stream(path)), axis=1)


def _kept(path: Path, name: str, audio: Float[np.ndarray, "C N"], codec: Codec) -> Take:
    if not path.exists():
        write_audio(path, audio, codec.sample_rate_hz)
    return Take(name, path, audio, codec.sample_rate_hz)
