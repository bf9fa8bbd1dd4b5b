"""What an adapter and its base play for the held-out bands."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adapters.sampler import AdapterSpec, Sampler
from benchmarks.play_along.bands import Band
from benchmarks.play_along.tasks import Task
from configs.sample import SampleSettings
from data_prep.base_files import resolve_base
from data_prep.context_names import CONTEXT
from data_prep.lm_spec import LMSpec

Followed = Mapping[str, Tensor]


def samplers(
    run: Path, *, play_sec: float, guidance: float, context_guidance: float | None, window_sec: float | None = None
) -> tuple[Sampler, Sampler]:
    """The run's adapter, and its base, which knows words only. Windows overlap by a third."""
    how = {"duration_sec": play_sec, "guidance": guidance, "context_guidance": context_guidance}
    how |= {} if window_sec is None else {"window_sec": window_sec, "overlap_sec": window_sec / 3}
    settings = SampleSettings.model_validate({**how, "device": "cpu", "seed": 0})
    files = resolve_base("starter")
    adapted = Sampler.load(files, [AdapterSpec(run / "adapter")], settings)
    return adapted, Sampler.load(files, [], settings.model_copy(update={"context_guidance": None}))


def followed(task: Task, bands: Sequence[Band], spec: LMSpec, play_sec: float, side: str = "") -> list[Followed]:
    """What each band gives to follow, a second longer than what is played."""
    n_frames = round((play_sec + 1) * spec.frame_rate)

    def tensor(kind: str, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values)[:n_frames].to(torch.int64 if kind == CONTEXT else torch.float32)

    every = [task.values(band, spec, side) for band in bands]
    return [{kind: tensor(kind, values) for kind, values in one.items()} for one in every]


def audio_of(sampler: Sampler, words: Sequence[str], also: Sequence[Followed] | None = None) -> list[np.ndarray]:
    """Pieces for these words, one channel each; `also`: what each follows besides."""
    takes = sampler.sample(list(words)) if also is None else sampler.sample(list(words), also=list(also))
    return [take.waveform[0].numpy() for take in takes]


def share_with_error(hits: Sequence[float]) -> str:
    """Mean and its standard error."""
    return f"{np.mean(hits):.3f} ± {np.std(hits, ddof=1) / len(hits) ** 0.5:.3f}"
