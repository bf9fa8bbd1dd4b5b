"""The melody that a piece follows: read from a recording, repeated where the piece is longer, compared with the piece.

Where a recording is continued as well, its last part has the melody it has, and the new music follows the other one.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from adapters.sampler import Sampler
from adapters.seams import Continuation
from configs.errors import UserError
from configs.prep import StemSettings
from data_prep.chroma import agreement, chroma
from data_prep.chroma_shape import ChromaShape
from data_prep.condition_sources.melody import MELODY, melody_rows, shape_of
from data_prep.condition_sources.registry import source_of
from data_prep.lm_spec import LMSpec
from data_prep.resample import resample

if TYPE_CHECKING:
    from finetune.sampling.line import Request

SHUFFLES = 100
"""Orders of the melody's entries that the agreement is compared with."""


@dataclass(frozen=True)
class PieceMelody:
    """The melody of a piece, [n, n_chroma] for its whole length, what is continued included."""

    values: Float[Tensor, "n n_chroma"]
    shape: ChromaShape
    n_before: int
    """Entries that belong to what is continued."""
    said: str
    """For people: what was read, and what was done with it."""

    @property
    def conditions(self) -> Mapping[str, Tensor]:
        """For the sampler."""
        return {MELODY: self.values}

    def compare(self, waveform: Float[Tensor, "C N"], sample_rate_hz: int) -> str:
        """How well the new music of a piece follows its melody, against the same melody in other orders."""
        heard = chroma(_at_rate(waveform.mean(0), sample_rate_hz, self.shape.sample_rate_hz), self.shape)
        found, chance = compared(heard[self.n_before :], self.values[self.n_before :])
        return f"melody: {found:.0%} of the moments agree; with the melody shuffled {chance:.0%}"


def compared(heard: Float[Tensor, "n n_chroma"], wanted: Float[Tensor, "m n_chroma"]) -> tuple[float, float]:
    """Chroma agreement, 0 to 1: with the melody, and on average with the same moments in other orders."""
    n = min(len(heard), len(wanted))
    draw, places, total = random.Random(0), list(range(n)), 0.0
    for _ in range(SHUFFLES):
        draw.shuffle(places)
        total += agreement(heard[:n], wanted[places])
    return agreement(heard, wanted), total / SHUFFLES


def read_melody(request: "Request", sampler: Sampler, before: Continuation | None) -> PieceMelody:
    """The melody of a recording, from `--from` on where nothing is continued.

    Raises:
        UserError: the recording cannot be read, or there is no melody in it.
    """
    path, spec = request.melody, sampler.engine.spec
    assert path is not None
    shape = shape_of(spec.condition(MELODY))
    from_sec = (request.from_sec or 0.0) if before is None else 0.0
    audio = _audio(path, request.melody_stems, shape)[round(from_sec * shape.sample_rate_hz) :]
    return _fitted(audio, path, from_sec, request.settings.duration_sec, spec, before)


def _fitted(
    audio: Float[Tensor, " N"], path: Path, from_sec: float, new_sec: float, spec: LMSpec, before: Continuation | None
) -> PieceMelody:
    """The values for a whole piece."""
    kind = spec.condition(MELODY)
    shape, source = shape_of(kind), source_of(MELODY)
    assert source is not None
    if source.values(audio.numpy(), kind) is None:
        raise UserError(
            f"there is no melody in {path.name}: it is silent there, or has no pitch",
            where=f"{path}, from {from_sec:g} s",
            fix="give another recording, or another moment with --from",
        )
    known = torch.zeros(0)
    if before is not None:
        frames = before.codes.shape[1] * spec.hop_samples
        known = _at_rate(before.audio[:, -frames:].mean(0), before.sample_rate_hz, shape.sample_rate_hz)
    wanted = round(new_sec * shape.sample_rate_hz)
    repeats = -(-wanted // len(audio))
    values = melody_rows(torch.cat([known, audio.repeat(repeats)[:wanted] if repeats > 1 else audio]), kind)
    seconds = len(audio) / shape.sample_rate_hz
    again = "; the piece is longer, so it begins again" if repeats > 1 else ""
    said = f"melody: {seconds:.1f} s of {path.name} from {from_sec:g} s on{again}"
    return PieceMelody(values, shape, round(len(known) / shape.hop_samples), said)


def _audio(path: Path, stems: str, shape: ChromaShape) -> Float[Tensor, " N"]:
    """A recording, or what is asked for of it, in mono."""
    from data_prep.decode import AudioError, stream
    from data_prep.separate import load_separator, separate

    source = source_of(MELODY)
    assert source is not None
    selection = source.selection(stems, "mix", StemSettings().model)
    assert selection is not None
    try:
        with TemporaryDirectory() as folder:
            if selection.needs:
                path = separate(path, [selection], load_separator(StemSettings().model, "cpu"), Path(folder))[
                    selection.name
                ]
            blocks = list(stream(path, sample_rate_hz=shape.sample_rate_hz, channels=1))
    except (AudioError, OSError) as error:
        raise UserError(f"cannot read the melody: {error}", where=str(path), fix="give an audio file") from error
    return torch.from_numpy(np.concatenate(blocks, axis=1)[0] if blocks else np.zeros(0, np.float32))


def _at_rate(audio: Float[Tensor, " N"], from_hz: int, to_hz: int) -> Float[Tensor, " M"]:
    if from_hz == to_hz:
        return audio.cpu()
    return torch.from_numpy(np.concatenate(list(resample([audio.cpu().numpy()[None]], from_hz, to_hz)), axis=1)[0])
