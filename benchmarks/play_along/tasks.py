"""What is learnt from the bands: which side is the target, which one is followed, and in what words it is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.play_along.bands import LEAKY, RESTS, WEAKENED, Band
from configs.prep import PrepSettings
from data_prep.base_files import BaseFiles
from data_prep.beat_grid import Beats
from data_prep.cache import Cache
from data_prep.codec.registry import base_codec_fingerprint
from data_prep.condition_sources.added import added_kinds
from data_prep.condition_sources.beat import BEAT
from data_prep.condition_sources.melody import MELODY, melody_rows
from data_prep.context_names import CONTEXT, degraded_name
from data_prep.dataset_files import NewDataset, put_in_place
from data_prep.dataset_info import dataset_info
from data_prep.lm_spec import LMSpec
from data_prep.prepared import ClipRow
from data_prep.text_encoders.port import text_encoder_fingerprint
from data_prep.texts import encode_captions
from starter.recipe.score import Piece


@dataclass(frozen=True)
class Task:
    """`target` is learnt; `follows` is the kind of condition, made from the side `source`."""

    name: str
    target: str
    follows: str
    source: str
    pair: str = ""
    degraded: str = ""
    """The side that some clips hear instead (`context.degraded_share`)."""
    judged_with: str = ""
    """Where that is another side: what the held-out bands' parts follow."""
    also: tuple[str, ...] = ()
    """Further kinds that are followed, made from the same source."""

    @property
    def sides(self) -> list[str]:
        """The sides whose tokens it needs."""
        heard = [self.source, self.degraded, self.judged_with] if self.follows == CONTEXT else []
        return [self.target, *(side for side in heard if side)]

    def words(self, piece: Piece) -> str:
        """Neither tempo nor key: they must come from what is followed."""
        return self.words_for(piece, piece.second if self.target == "no_lead" else piece.family)

    def words_for(self, piece: Piece, family: str) -> str:
        """The same, asking for another family of instruments (the drums have none)."""
        named = {"no_lead": f"{family} chords, bass, drums", "pitched": family}
        return f"{named.get(self.target, 'drums')}, {piece.manner}"

    def values(self, band: Band, spec: LMSpec, side: str = "") -> dict[str, np.ndarray]:
        """What the band gives to follow, by kind, an entry per frame; of a context track, another side may be asked
        for.
        """
        return {kind: self._values(kind, band, spec, side) for kind in (self.follows, *self.also)}

    def _values(self, kind: str, band: Band, spec: LMSpec, side: str) -> np.ndarray:
        n_frames = band.codes[self.target].shape[1]
        if kind == CONTEXT:
            return np.ascontiguousarray(band.codes[side or self.source].T)
        if kind == BEAT:
            return true_beats(band.piece).features(n_frames, spec.frame_rate)
        audio = torch.from_numpy(band.side(self.source))
        return melody_rows(audio, added_kinds(spec)[MELODY]).numpy()[:n_frames]


SEPARATED = "separated"
"""Drums from the rest, both as a separator leaves them."""
TASKS = {
    task.name: task
    for task in (
        Task("drums", "drums", CONTEXT, "no_drums", "drums|rest"),
        Task("accompaniment", "no_lead", CONTEXT, "lead", "rest|lead"),
        Task("accompaniment-melody", "no_lead", CONTEXT, "lead", "rest|lead", also=(MELODY,)),
        Task("melody", "pitched", MELODY, "pitched"),
        Task("beat", "no_lead", BEAT, "no_lead"),
        Task(SEPARATED, "drums", CONTEXT, "no_drums", "drums|rest"),
        Task("rests", f"drums{RESTS}", CONTEXT, f"no_drums{RESTS}", "drums|rest"),
        *(Task(f"leak-{how}", "drums", CONTEXT, LEAKY, "drums|rest", f"{LEAKY}_{how}", "no_drums") for how in WEAKENED),
    )
}


def true_beats(piece: Piece) -> Beats:
    """As the composer wrote them."""
    number = np.arange(len(piece.beats_sec))
    return Beats(np.asarray(piece.beats_sec), number % piece.beats_per_bar == 0)


def write_dataset(folder: Path, task: Task, bands: Sequence[Band], held_out: Sequence[Band], files: BaseFiles) -> None:
    """A prepared dataset as `woodshed prep` writes it: a clip per band; the tokens are there already."""
    cache = Cache(folder / ".cache")
    cache.folder.mkdir(parents=True, exist_ok=True)
    codec, encoder = base_codec_fingerprint(files), text_encoder_fingerprint(files)
    every = [*bands, *held_out]
    rows = [_row(band, task, files.spec, "train" if band in bands else "validation") for band in every]
    settings = PrepSettings.model_validate({"base": "starter", "captions": {"trigger": ""}})
    states = encode_captions({row.captions[0] for row in rows}, files, encoder, cache, device=torch.device("cpu"))
    values = [task.values(band, files.spec) for band in every]
    conditions = {kind: {row.id: one[kind] for row, one in zip(rows, values, strict=True)} for kind in values[0]}
    if task.degraded:
        held = [task.values(band, files.spec, task.degraded)[CONTEXT] for band in every]
        conditions[degraded_name(1)] = {row.id: one for row, one in zip(rows, held, strict=True)}
    notes = {name: _note(task, name, len(rows), files) for name in conditions}
    info = dataset_info(settings, files, codec=codec, text_encoder=encoder, separator=None, conditions=notes)
    new = NewDataset(
        rows,
        [],
        {row.id: band.codes[task.target] for row, band in zip(rows, every, strict=True)},
        {state.file_name: state.path for state in states.values()},
        info,
        conditions=conditions,
    )
    put_in_place(folder, cache, new, new.content(), lambda: "")


def _row(band: Band, task: Task, spec: LMSpec, split: str) -> ClipRow:
    n_frames = band.codes[task.target].shape[1]
    name = f"band{band.piece.seed:07}"
    duration_sec = n_frames / spec.frame_rate
    return ClipRow(name, name, "0" * 64, 0.0, duration_sec, n_frames, task.target, split, [task.words(band.piece)])


def _note(task: Task, name: str, n_clips: int, files: BaseFiles) -> Mapping[str, object]:
    """What prep.yaml says of a condition."""
    from data_prep.condition_sources.registry import source_of

    kind = added_kinds(files.spec)[name if name in (task.follows, *task.also) else CONTEXT]
    source = source_of(kind.name)
    made_with = None if source is None else source.depends_on(kind)
    pair = task.pair if kind.name == CONTEXT else ""
    return {"clips": n_clips, "width": kind.width, "pair": pair, "made_with": made_with}
