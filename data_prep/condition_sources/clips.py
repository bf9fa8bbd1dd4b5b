"""The conditions of all clips: from which audio each is read, and its values, made once and kept in the cache."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from configs.errors import UserError
from configs.prep import AUTO, PrepSettings
from data_prep.cache import Cache, work_key
from data_prep.clips import Clip, Version, changed, read_clips
from data_prep.condition_sources.added import added_kinds
from data_prep.condition_sources.beat import BEAT
from data_prep.condition_sources.drums import DRUMS, DrumsFrom
from data_prep.condition_sources.melody import MELODY
from data_prep.condition_sources.notes import NOTES, NotesFrom
from data_prep.condition_sources.port import ConditionSource
from data_prep.condition_sources.registry import source_of, sources_for
from data_prep.decode import AudioError
from data_prep.lm_spec import ConditionKind, LMSpec
from data_prep.notes.model import NotesModel, model_file
from data_prep.progress import stage
from data_prep.stems import DRUMS as DRUM_STEM
from data_prep.stems import MIX, Selection, parse_selection

NONE = "none"
MAGENTA = "google/magenta-realtime-2"
FOLLOWED_BY = {MELODY: "facebook/musicgen-melody", NOTES: MAGENTA, DRUMS: MAGENTA}
"""Settings of this name say what a condition is read from; a base that follows it."""
LEARNS = "facebook/musicgen-small"
"""A base that adapters can teach to follow a melody or beats."""
Values = Mapping[str, np.ndarray]
"""Values [n, width] by clip id; a clip without any has no entry."""


@dataclass(frozen=True)
class Wanted:
    """A kind of condition that is to be made, and from what audio."""

    kind: ConditionKind
    source: ConditionSource
    asked: str
    separator: str

    def selection(self, version: str) -> Selection | None:
        """The audio that a clip of this version has its condition from."""
        return self.source.selection(self.asked, version, self.separator)


def wanted_conditions(spec: LMSpec, settings: PrepSettings) -> list[Wanted]:
    """What this base follows besides text, unless the settings say `none`, and what an adapter is to add to that.

    Raises:
        UserError: a condition is asked for that neither the base nor an adapter for it can follow.
    """
    asked = {name: getattr(settings, name).strip().lower() for name in (*FOLLOWED_BY, BEAT)}
    kinds = sources_for(spec)
    if settings.pair is not None and not spec.adds_frames:
        raise UserError(
            "This base cannot learn to follow another track.",
            where=f"--pair {settings.pair}",
            fix=f"Leave --pair out, or choose a base that can, e.g. {LEARNS}.",
        )
    for name, said in asked.items():
        if said == NONE or spec.has(name) or (said == AUTO and name in (MELODY, BEAT)):
            continue
        kind, source = added_kinds(spec).get(name), source_of(name)
        if kind is None or source is None:
            raise UserError(
                f"This base does not follow {'a melody' if name == MELODY else name}.",
                where=f"--{name} {said}",
                fix=f"Leave --{name} out, or choose a base that does, e.g. {FOLLOWED_BY.get(name, LEARNS)}.",
            )
        kinds.append((kind, source))
    separates = any(parse_selection(one).needs for one in settings.stems.use)
    usual = {DRUMS: DRUM_STEM} if separates else {}  # the stem costs nothing more then
    said = {**usual, **{name: words for name, words in asked.items() if words != AUTO}}
    found = [Wanted(kind, source, said.get(kind.name, source.usual), settings.stems.model) for kind, source in kinds]
    return [_with_maker(wanted, settings) for wanted in found if wanted.asked != NONE]


def selections_of(wanted: Sequence[Wanted], versions: Sequence[str]) -> list[Selection]:
    """All audio that conditions are read from, each once."""
    found = (one.selection(version) for one in wanted for version in versions)
    return list({selection.name: selection for selection in found if selection is not None}.values())


def make_conditions(
    wanted: Sequence[Wanted], clips: Sequence[Clip], versions: Sequence[Version], cache: Cache
) -> dict[str, dict[str, np.ndarray]]:
    """Values by kind and clip id; `versions` holds every track in all selections.

    Raises:
        UserError: a song changed since it was measured.
    """
    audio = {(version.track.source_sha256, version.stems): version for version in versions}
    return {one.kind.name: _of_kind(one, clips, audio, cache) for one in wanted}


def prep_notes(wanted: Sequence[Wanted], made: Mapping[str, Values]) -> dict[str, object]:
    """What prep.yaml says of each kind."""
    return {
        one.kind.name: {
            "from": one.asked,
            "clips": len(made[one.kind.name]),
            "width": one.kind.width,
            "rate_hz": one.kind.rate_hz,
            "version": one.source.version,
            "made_with": one.source.depends_on(one.kind),
        }
        for one in wanted
    }


def _with_maker(one: Wanted, settings: PrepSettings) -> Wanted:
    """With what the source must know besides the base; what is missing is said before any work.

    Raises:
        UserError: notes are asked for, and there is no model, or nothing to run it with.
    """
    if one.kind.name == NOTES:
        path = model_file(settings.notes_model)
        NotesModel.load(path)
        return replace(one, kind=replace(one.kind, made_with=NotesFrom(path)))
    if one.kind.name == DRUMS:
        return replace(one, kind=replace(one.kind, made_with=DrumsFrom(one.asked == MIX)))
    return one


def _of_kind(
    one: Wanted, clips: Sequence[Clip], audio: Mapping[tuple[str, str], Version], cache: Cache
) -> dict[str, np.ndarray]:
    read_from: dict[str, Version] = {}
    for clip in clips:
        selection = one.selection(clip.version.stems)
        if selection is not None:
            read_from[clip.id] = audio[clip.version.track.source_sha256, selection.name]
    found: dict[str, np.ndarray] = {}
    with stage(one.kind.name, len(clips), unit="clips") as progress:
        progress.advance(len(clips) - len(read_from))
        todo = []
        for clip in clips:
            if clip.id not in read_from:
                continue
            known = cache.read_tensors(one.kind.name, _key(one, clip, read_from[clip.id]))
            if known is None:
                todo.append(clip)
                continue
            found[clip.id] = known["values"]
            progress.advance(reused=True)
        for clip, samples in _audio(one, todo, read_from):
            values = one.source.values(samples, one.kind)
            kept = np.zeros((0, one.kind.width), np.float32) if values is None else values
            cache.write_tensors(one.kind.name, _key(one, clip, read_from[clip.id]), {"values": kept})
            found[clip.id] = kept
            progress.advance()
    return {clip.id: found[clip.id] for clip in clips if len(found.get(clip.id, ()))}


def _key(one: Wanted, clip: Clip, version: Version) -> str:
    place = Clip(version, clip.segment).place
    return work_key(one.source.version, kind=one.kind.name, **one.source.depends_on(one.kind), **place)


def _audio(one: Wanted, clips: Sequence[Clip], read_from: Mapping[str, Version]) -> Iterator[tuple[Clip, np.ndarray]]:
    """Each clip with the mono audio [N] that its condition is read from; a track is decoded once."""
    for _, of_version in groupby(clips, key=lambda clip: read_from[clip.id].key):
        group = sorted(of_version, key=lambda clip: clip.segment.start_sec)
        version = read_from[group[0].id]
        try:
            audio = read_clips(
                version.path,
                [clip.segment for clip in group],
                sample_rate_hz=one.source.sample_rate_hz(one.kind),
                channels=1,
                fold=version.scan.fold,
            )
            for clip, samples in zip(group, audio, strict=True):
                yield clip, samples[0]
        except (AudioError, OSError) as error:
            raise changed(version.track.song.relative, error) from error
