"""The beats that a piece keeps to: a tempo, a table of beats, or those of a recording."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from adapters.sampler import Sampler
from adapters.seams import Continuation
from configs.errors import UserError
from data_prep.beat_grid import RATE_HZ, Beats, grid, read_beats, tracked
from data_prep.condition_sources.beat import BEAT

if TYPE_CHECKING:
    from finetune.sampling.line import Request

TABLES = (".txt", ".csv", ".tsv", ".beats")
"""Files of these names are tables of beats; others are recordings."""


@dataclass(frozen=True)
class PieceBeats:
    """A click track for a whole piece, what is continued included."""

    values: Float[Tensor, "T 4"]
    said: str
    """For people: which beats these are."""

    @property
    def conditions(self) -> Mapping[str, Tensor]:
        """For the sampler."""
        return {BEAT: self.values}


def read_piece_beats(request: "Request", sampler: Sampler, before: Continuation | None) -> PieceBeats:
    """The beats that `--beat` names, from `--from` on where nothing is continued.

    Raises:
        UserError: none can be read.
    """
    spec, asked = sampler.engine.spec, request.beat
    assert asked is not None
    new_sec = sampler.settings.duration_sec
    n_before = 0 if before is None else before.codes.shape[1]
    from_sec = (request.from_sec or 0.0) if before is None else 0.0
    beats, said = _beats(asked, from_sec, new_sec)
    n_frames = 1 + round(new_sec * spec.frame_rate)
    values = np.concatenate([np.zeros((n_before, 4), np.float32), beats.features(n_frames, spec.frame_rate)])
    return PieceBeats(torch.from_numpy(values), said)


def _beats(asked: str, from_sec: float, new_sec: float) -> tuple[Beats, str]:
    try:
        bpm = float(asked)
    except ValueError:
        return _of_file(Path(asked), from_sec, new_sec)
    if not 20 <= bpm <= 400:
        raise UserError("a tempo of 20 to 400 beats per minute is wanted", where=f"--beat {asked}")
    return grid(bpm, new_sec), f"beats: {bpm:g} a minute, bars of four"


def _of_file(path: Path, from_sec: float, new_sec: float) -> tuple[Beats, str]:
    beats = read_beats(path) if path.suffix.lower() in TABLES else _of_recording(path)
    cut = beats.from_second(from_sec)
    if len(cut.at_sec) < 2:
        raise UserError(f"the beats of {path.name} end before second {from_sec:g}", fix="give an earlier --from")
    longer = cut.lasting(new_sec)
    more = f"; the last {new_sec - cut.at_sec[-1]:.1f} s go on in that tempo" if longer is not cut else ""
    downbeats = "" if cut.downbeats.any() else ", downbeats unknown"
    return longer, f"beats: {cut.tempo_bpm:.1f} a minute, from {path.name}{downbeats}{more}"


def _of_recording(path: Path) -> Beats:
    from data_prep.decode import AudioError, stream

    try:
        blocks = list(stream(path, sample_rate_hz=RATE_HZ, channels=1))
    except (AudioError, OSError) as error:
        raise UserError(f"cannot read the beats: {error}", where=str(path), fix="give an audio file") from error
    found = tracked(np.concatenate(blocks, axis=1)[0]) if blocks else None
    if found is None:
        raise UserError("no beats are found in this recording", where=str(path), fix="give a tempo instead: --beat 120")
    return found
