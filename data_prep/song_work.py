"""What is done to songs before they become a dataset: read, separated, cut, described, made into what a model sees.

Every stage asks the cache first and leaves its results there song by song, so that a run after a kill, or with another
setting, does only what is not there, and so that some of the songs can be worked on elsewhere (`data_prep.cluster`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from configs.prep import PrepSettings
from data_prep.base_files import BaseFiles, resolve_base
from data_prep.cache import Cache
from data_prep.clips import Clip
from data_prep.codec.registry import base_codec_fingerprint
from data_prep.condition_sources.clips import make_conditions, prep_notes, selections_of, wanted_conditions
from data_prep.context_side import context_codes
from data_prep.context_side import notes as pair_notes
from data_prep.cut import cut_clips, with_music
from data_prep.describe import Described, describe_clips
from data_prep.device import pick_device
from data_prep.encode import encode_clips
from data_prep.move import Move
from data_prep.multitracks import own_stems
from data_prep.pairs import Pair, parse_pair, with_both
from data_prep.scan import Rejection
from data_prep.separate import Selection, parse_selection
from data_prep.song_file import SongFile
from data_prep.stem_names import STEMS, read_table
from data_prep.stems import FOUR, PUBLISHED, check_published, check_selections
from data_prep.text_encoders.port import text_encoder_fingerprint
from data_prep.track_sound import TrackSounds, listen_to_tracks
from data_prep.tracks import Track, measure_tracks
from data_prep.versions import Separation, make_versions


@dataclass(frozen=True)
class Wishes:
    """What the settings ask for, read and checked: what is learned from, and the pair of a play-along dataset."""

    selections: list[Selection]
    pair: Pair | None
    stem_table: Mapping[str, str]

    @property
    def own_stems(self) -> tuple[str, ...]:
        """The stems of a person's own multitracks."""
        return tuple(dict.fromkeys([*STEMS, *self.stem_table.values()]))

    @property
    def context(self) -> list[Selection]:
        """The stems that a play-along adapter follows."""
        return list(self.pair.context) if self.pair else []


@dataclass(frozen=True)
class Place:
    """Where work is done and for which base, with the fingerprints that its results are kept under."""

    files: BaseFiles
    codec: str
    text_encoder: str
    cache: Cache
    device: torch.device


@dataclass(frozen=True)
class Work:
    """What is known of some songs' clips, but for the states of their captions. Empty without clips."""

    tracks: list[Track]
    rejected: list[Rejection]
    clips: list[Clip]
    sounds: TrackSounds
    """Tempi, and which tracks are near-duplicates of one another."""
    described: dict[str, Described]
    codes: dict[str, np.ndarray]
    conditions: dict[str, dict[str, np.ndarray]]
    """By kind and clip, what the model follows besides words."""
    notes: dict[str, object]
    """What prep.yaml says of each kind of condition."""
    separator: dict[str, str] | None


def read_wishes(settings: PrepSettings) -> Wishes:
    """Read what the settings ask for.

    Raises:
        UserError: they name a stem that there is not, or contradict each other.
    """
    selections = list({s.name: s for s in map(parse_selection, settings.stems.use)}.values())
    wishes = Wishes(selections, None, read_table(settings.stem_names))
    if settings.pair is not None:
        there = wishes.own_stems if settings.multitracks else PUBLISHED.get(settings.stems.model, FOUR)
        pair = parse_pair(settings.pair, there)
        wishes = replace(wishes, selections=[pair.target], pair=pair)
    _check_stems([*wishes.selections, *wishes.context], wishes, settings)
    return wishes


def _check_stems(selections: Sequence[Selection], wishes: Wishes, settings: PrepSettings) -> None:
    """Whether there are such stems: a person's own, or those that the separation model makes."""
    if settings.multitracks:
        check_selections(selections, wishes.own_stems)
    else:
        check_published(selections, settings.stems.model)


def base_for(settings: PrepSettings) -> BaseFiles:
    """The base, moved to the text encoder and the codec that the settings name.

    Raises:
        UserError: one of them is not found or cannot be used.
    """
    from data_prep.codec.resolve import choose as choose_codec
    from data_prep.text_encoders.transformers_text import choose as choose_text

    files = resolve_base(settings.base, settings.revision)
    text = None if settings.text_encoder is None else choose_text(settings.text_encoder)
    codec = None if settings.codec is None else choose_codec(settings.codec, files.own_spec.channels)
    return files.moved(Move(text=text, codec=codec))


def find_place(settings: PrepSettings, cache: Cache) -> Place:
    """The base, which decides rate, channels and fingerprints; its models are loaded only where there is work for them.

    Raises:
        UserError: the base cannot be had.
    """
    files = base_for(settings)
    device = pick_device(settings.device)
    return Place(files, base_codec_fingerprint(files), text_encoder_fingerprint(files), cache, device)


def work_on(
    songs: Sequence[SongFile],
    settings: PrepSettings,
    wishes: Wishes,
    place: Place,
    edits: Mapping[str, Sequence[str]] | None = None,
) -> Work:
    """Everything that these songs need; what is in the cache is not done again. `edits` are captions by clip.

    Raises:
        UserError: a model cannot be had, or a song changed meanwhile.
    """
    files, cache, pair, device = place.files, place.cache, wishes.pair, place.device
    wanted = wanted_conditions(files.spec, settings)
    read_from = selections_of(wanted, [selection.name for selection in wishes.selections])
    _check_stems(read_from, wishes, settings)

    # 1. Read and measure.
    tracks, rejected = measure_tracks(
        songs,
        cache,
        max_track_sec=settings.max_track_sec,
        workers=settings.workers,
        keep_copies=settings.multitracks,
    )

    # 2. Stems of whole tracks, then clips of each version.
    every = list({one.name: one for one in [*wishes.selections, *wishes.context, *read_from]}.values())
    own = own_stems(tracks, pair, every, wishes.stem_table, cache) if pair and settings.multitracks else None
    if own is not None:
        tracks, rejected = own.tracks, [*rejected, *own.rejected]
    tracks, silent = with_music(tracks, settings.segment, files)
    if own is not None:
        with_clips = {track.source_sha256 for track in tracks}
        made = Separation([v for v in own.versions if v.track.source_sha256 in with_clips], None)
    else:
        made = make_versions(tracks, every, settings.stems, cache, device=device, seed=settings.seed)
    learned = {selection.name for selection in wishes.selections}
    versions = [version for version in made.versions if version.stems in learned]
    clips, without = cut_clips(versions, settings.segment, files)
    if pair is not None:
        clips, alone = with_both(clips, pair, made.versions, files.spec.channels, settings.segment.silence_db)
        without = [*without, *alone]
    rejected = [*rejected, *silent, *without]
    if not clips:
        return Work(tracks, rejected, [], TrackSounds({}, []), {}, {}, {}, {}, made.separator)

    # 3. What each clip is: features, tags, captions.
    sounds = listen_to_tracks(tracks, versions, cache, workers=settings.workers)
    described = describe_clips(clips, sounds.tempi, settings, cache, edits or {}, channels=files.spec.channels)

    # 4. What the model is given: codec tokens, and what it follows besides words.
    codes = encode_clips(clips, files, place.codec, cache, device=device, batch_size=settings.batch_size)
    conditions = make_conditions(wanted, clips, made.versions, cache)
    notes = prep_notes(wanted, conditions)
    if pair is not None:
        context_side = context_codes(clips, pair, made.versions, files, place.codec, cache, device=device)
        conditions, notes = {**conditions, **context_side}, {**notes, **pair_notes(pair, context_side, files)}
    return Work(tracks, rejected, clips, sounds, described, codes, conditions, notes, made.separator)
