"""Play what a plan asks for, with the base alone or with an adapter, and keep codes and sound."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from adapters.decode.strength_schedule import StrengthSchedule
from adapters.sampler import AdapterSpec, Sampler
from configs.evaluate import EvaluateSettings
from configs.sample import SampleSettings
from data_prep.base_files import BaseFiles
from finetune.judge.plan import Ask, Kind

AT_ONCE = 16
"""Pieces played side by side."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Piece:
    """What was played for an ask."""

    ask: Ask
    codes: Int[np.ndarray, "K T"]
    audio: Float[np.ndarray, "C N"]


def sampler(
    files: BaseFiles, settings: EvaluateSettings, adapter: Path | None = None, strength: float = 1.0
) -> Sampler:
    """The base, or the base with an adapter at a strength.

    Raises:
        UserError: the adapter does not belong to this base.
    """
    how = SampleSettings(
        duration_sec=settings.duration_sec,
        guidance=settings.guidance,
        precision=settings.precision,
        device=settings.device,
        text_encoder=files.move.text.id if adapter is not None and files.move.text is not None else None,
    )
    specs = [] if adapter is None else [AdapterSpec(adapter, StrengthSchedule.constant(strength))]
    return Sampler.load(files, specs, how)


def play(player: Sampler, asks: Sequence[Ask]) -> list[Piece]:
    """A piece for every ask, in order; the same whatever else is played."""
    pieces: list[Piece] = []
    for first in range(0, len(asks), AT_ONCE):
        part = asks[first : first + AT_ONCE]
        takes = player.sample([ask.prompt for ask in part], seeds=[ask.seed for ask in part])
        pieces += [Piece(ask, take.codes, take.waveform.numpy()) for ask, take in zip(part, takes, strict=True)]
    return pieces


def of_kind(pieces: Sequence[Piece], *kinds: Kind) -> list[Piece]:
    """The pieces of some kinds."""
    return [piece for piece in pieces if piece.ask.kind in kinds]


def audio_of(pieces: Sequence[Piece]) -> list[Float[np.ndarray, "C _"]]:
    """Their sound."""
    return [piece.audio for piece in pieces]
