"""Pairs as a person makes them: the bands' mixes separated by a real Demucs model, by `woodshed prep --pair` itself.

What the separator leaves of the drums in the rest is a real leak; whether an adapter relies on it shows when it follows
clean rests.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.play_along.bands import LEARN_SEC, RATE_HZ, Band
from benchmarks.play_along.tasks import Task
from configs.prep import PrepSettings
from data_prep.prepare import prepare

LOUDEST = 0.9


def separate_and_prepare(folder: Path, task: Task, bands: Sequence[Band], model: str) -> None:
    """A dataset of the bands' mixes, 8 s of each, in the task's words. `model`: a Demucs model's name or folder."""
    songs = folder.with_name(f"{folder.name}-songs")
    songs.mkdir(parents=True, exist_ok=True)
    for band in bands:
        mix = (band.side("no_drums") + band.side("drums"))[: round(LEARN_SEC * RATE_HZ)]
        path = songs / f"band{band.piece.seed:07}.wav"
        soundfile.write(path, mix * min(1.0, LOUDEST / float(np.abs(mix).max())), RATE_HZ)
        path.with_suffix(".txt").write_text(task.words(band.piece))
    settings = {
        "base": "starter",
        "pair": task.pair,
        "stems": {"model": model},
        "captions": {"sources": ["own"], "listeners": {"use": []}},
        "device": "cpu",
    }
    print(prepare(songs, folder, PrepSettings.model_validate(settings)))
