"""Notes and drums as a hand plays them, as conditions per frame of a base that follows them.

Such a base has a kind `notes` (a state for each of 128 MIDI pitches, see `data_prep.note_slots`) and a kind `drums`.
What a hand says is given from this frame on: `AudioStream.set_conditions` takes it.
"""

from collections.abc import Collection

import torch
from jaxtyping import Int
from torch import Tensor

from adapters.family.magenta_rt2.conditions import DRUMS, NO_DRUMS, UNKNOWN
from data_prep.note_slots import HELD, N_PITCHES, OFF, ONSET

TAP_FRAMES = 3
"""A key that was let go before it was heard sounds so long: 0.12 s at 25 frames a second."""


def notes_from_now(held: Collection[int], struck: Collection[int], *, silent: bool) -> Int[Tensor, "n 128"]:
    """These pitches held, these struck in the first frame; the others are silent, or the model's own affair."""
    frames = torch.full((TAP_FRAMES + 1, N_PITCHES), OFF if silent else UNKNOWN)
    frames[:, list(held)] = HELD
    frames[:TAP_FRAMES, list(struck)] = HELD
    frames[0, list(struck)] = ONSET
    return frames


def drums_from_now(drums: bool | None) -> Int[Tensor, "1 1"]:
    """Drums or none; None: as the model likes."""
    return torch.tensor([[UNKNOWN if drums is None else DRUMS if drums else NO_DRUMS]])
