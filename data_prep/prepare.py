"""`woodshed prep`: a folder of songs → a prepared dataset. What is done to each song is in `song_work`."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from configs.prep import KEPT, PrepSettings
from data_prep.cache import Cache
from data_prep.caption_edits import Edits, kept_edits, read_edits
from data_prep.captions import without_trigger
from data_prep.cluster import prepare_on_ray
from data_prep.copies import Copies, copies_of
from data_prep.dataset_files import NewDataset, is_current, put_in_place
from data_prep.dataset_info import dataset_info
from data_prep.describe import SongAccount, song_accounts
from data_prep.folders import check_folders, nothing_usable
from data_prep.lock import only_one
from data_prep.players import make_players
from data_prep.prepared import ClipRow
from data_prep.report import render
from data_prep.scan import Rejection, ScanResult, scan
from data_prep.song_work import Work, find_place, read_wishes, work_on
from data_prep.split import split_tracks
from data_prep.texts import TextState, encode_captions


@dataclass(frozen=True)
class Shared:
    """What is common to all rows: how many channels the codec is given, and which tracks are copies of others."""

    channels: int
    copies: Copies


@dataclass(frozen=True)
class Summary:
    """What a run made. `unchanged` when the dataset was there already, as it is."""

    out: Path
    rows: list[ClipRow]
    rejected: list[Rejection]
    seconds: float
    unchanged: bool
    found: ScanResult
    """What the song folder holds beside the songs, and what became of its metadata files."""
    songs: list[SongAccount]
    """What was read of each song that is in the dataset."""
    conditions: dict[str, int] = field(default_factory=dict)
    """How many clips have a value, by kind of condition that was made."""
    edits: Edits = Edits()  # noqa: RUF009 (frozen)
    """The captions that a person edited."""
    too_short: int = 0
    """How many tracks were too short to be compared with the others."""


def prepare(songs: Path, out: Path, settings: PrepSettings) -> Summary:
    """Make or complete the dataset of a song folder. The song folder is only read.

    Raises:
        UserError: anything a person can mend; what is finished by then is kept.
    """
    started = time.perf_counter()
    found = scan(songs)
    check_folders(songs, out)
    wishes = read_wishes(settings)
    cache = Cache(out / ".cache")
    with only_one(cache.folder):
        cache.claim()

        # 1. The songs, one by one; a cluster leaves what it did in the cache.
        place = find_place(settings, cache)
        edits = _edits(settings.captions.edits, out)
        if settings.cluster == "ray":
            prepare_on_ray(found.songs, settings, cache.folder)
        work = work_on(found.songs, settings, wishes, place, edits.captions)
        rejected = sorted([*found.rejected, *work.rejected], key=lambda r: (r.where, r.what, r.why))
        if not work.clips:
            raise nothing_usable(songs, rejected, found.passed_over)
        rejected += edits.unused({clip.id for clip in work.clips})
        accounts = song_accounts([clip.version.track for clip in work.clips], settings, cache)

        # 2. The states of their captions.
        captions = [caption for d in work.described.values() for caption in d.captions]
        bare = {without_trigger(caption, settings.captions.trigger) for caption in captions} - {""}
        alone = {settings.captions.trigger} - {""}
        texts = encode_captions([*captions, *bare, *alone], place.files, place.text_encoder, cache, device=place.device)

        # 3. The dataset, unless the very same one is there.
        shared = Shared(place.files.spec.channels, copies_of(work.tracks, work.sounds.same))
        rows = _rows(work, texts, shared, settings)
        info = dataset_info(
            settings,
            place.files,
            codec=place.codec,
            text_encoder=place.text_encoder,
            separator=work.separator,
            conditions=work.notes,
        )
        states = {state.file_name: state.path for state in texts.values()}
        new = NewDataset(rows, rejected, work.codes, states, info, accounts, work.conditions, edits)
        content = new.content()
        unchanged = is_current(out, content)
        if not unchanged:
            players = make_players(rows, work.clips, work.codes, place.files, place.device)
            short = work.sounds.too_short
            put_in_place(
                out, cache, new, content, lambda: render(rows, rejected, info, players, accounts, found, short)
            )
    with_values = {kind: len(values) for kind, values in work.conditions.items()}
    seconds = time.perf_counter() - started
    short = work.sounds.too_short
    return Summary(out, rows, rejected, seconds, unchanged, found, accounts, with_values, edits, too_short=short)


def _edits(table: Path | None, out: Path) -> Edits:
    """Those of the table, or of the run before; none where the person wants none."""
    return kept_edits(out) if table == Path(KEPT) else read_edits(table)


def _rows(work: Work, texts: dict[str, TextState], shared: Shared, settings: PrepSettings) -> list[ClipRow]:
    """The lines of clips.jsonl, by source and position."""
    seconds: dict[str, float] = {}
    for clip in work.clips:
        music = shared.copies.music[clip.version.track.source_sha256]
        seconds[music] = seconds.get(music, 0.0) + clip.segment.duration_sec
    splits = split_tracks(seconds, settings.validation_fraction, settings.seed)
    rows = []
    for clip in work.clips:
        track, said = clip.version.track, work.described[clip.id]
        flags = [*clip.version.scan.for_channels(shared.channels).flags, *shared.copies.flags[track.source_sha256]]
        flags += said.flags
        flags += ["caption_cut"] if any(texts[caption].cut for caption in said.captions) else []
        row = ClipRow(
            id=clip.id,
            source=track.song.relative,
            source_sha256=track.source_sha256,
            start_sec=round(clip.segment.start_sec, 6),
            duration_sec=round(clip.segment.duration_sec, 6),
            n_frames=work.codes[clip.id].shape[1],
            stems=clip.version.stems,
            split=splits[shared.copies.music[track.source_sha256]],
            captions=said.captions,
            loudness_lufs=said.loudness_lufs,
            tempo_bpm=said.tempo_bpm,
            key=said.key,
            tags=said.tags,
            flags=flags,
            listeners=said.listeners,
        )
        rows.append(row)
    return rows
