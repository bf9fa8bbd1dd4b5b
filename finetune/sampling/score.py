"""What `--notes` and `--drums` say of a piece: a state per pitch and frame, and whether drums play.

Where a recording is continued, its own part stays unknown, and the notes begin with the new music; behind the file's
end the model is free again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from configs.errors import UserError
from data_prep.condition_sources.drums import DRUMS
from data_prep.condition_sources.notes import NOTES
from data_prep.lm_spec import LMSpec
from data_prep.note_slots import N_PITCHES, note_slots
from data_prep.notes.drums import drum_slots
from data_prep.notes.midi import Score, read_midi

if TYPE_CHECKING:
    from finetune.sampling.line import Request

UNKNOWN = -1


@dataclass(frozen=True)
class PieceScore:
    """Conditions of a piece by kind, for its whole length, and what to say of them."""

    conditions: Mapping[str, Int[Tensor, "T _"]]
    said: str


def refuse_unfollowed_score(request: "Request", spec: LMSpec) -> None:
    """Notes and drums are for bases that follow them.

    Raises:
        UserError: this one does not.
    """
    for asked, value in ((NOTES, request.notes), (DRUMS, request.drums)):
        if value is not None and not spec.has(asked):
            raise UserError(
                f"this base does not follow {asked}",
                where=f"--{asked}",
                fix=f"leave --{asked} out, or use a base that does, e.g. google/magenta-realtime-2",
            )


def read_score(request: "Request", spec: LMSpec, known_frames: int) -> PieceScore | None:
    """None where neither notes nor drums are asked for.

    Raises:
        UserError: the base follows neither, or the MIDI file cannot be read.
    """
    if request.notes is None and request.drums is None:
        return None
    refuse_unfollowed_score(request, spec)
    n_frames = round(request.settings.duration_sec * spec.frame_rate)
    score = Score([], []) if request.notes is None else read_midi(request.notes)
    found, said = {}, []
    if score.notes:
        found[NOTES] = _placed(
            note_slots(score.notes, _frames_of(score, spec), spec.frame_rate), known_frames, n_frames
        )
        late = sum(note.start_sec >= request.settings.duration_sec for note in score.notes)
        said.append(f"{len(score.notes)} notes" + (f", {late} of them behind the end of the piece" if late else ""))
    if request.drums is not None:
        on = np.full((n_frames, 1), int(request.drums == "on"), np.int8)
        found[DRUMS], word = _placed(on, known_frames, n_frames), request.drums
        said.append(f"drums {word}" + (", whatever the file says" if score.drums_sec else ""))
    elif score.drums_sec:
        hits = np.array(score.drums_sec)
        found[DRUMS] = _placed(drum_slots(hits, _frames_of(score, spec), spec.frame_rate), known_frames, n_frames)
        said.append(f"drums near the {len(score.drums_sec)} hits of channel 10")
    else:
        said.append("no drums on channel 10, so the model decides (--drums on or off)")
    name = "" if request.notes is None else f"{request.notes.name}: "
    return PieceScore(found, f"follows {name}{'; '.join(said)}")


def _frames_of(score: Score, spec: LMSpec) -> int:
    last = max([note.end_sec for note in score.notes] + score.drums_sec)
    return int(np.ceil(last * spec.frame_rate)) + 1


def _placed(slots: np.ndarray, known_frames: int, n_frames: int) -> Int[Tensor, "T _"]:
    """Behind what is known, cut or filled with unknown to the piece's length."""
    width = slots.shape[1]
    assert width in (1, N_PITCHES)
    whole = torch.full((known_frames + n_frames, width), UNKNOWN, dtype=torch.long)
    kept = torch.from_numpy(slots[:n_frames].astype(np.int64))
    whole[known_frames : known_frames + len(kept)] = kept
    return whole
