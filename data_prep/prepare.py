"""`woodshed prep`: a folder of songs → a prepared dataset. The stages in order, each in its own file.

Every stage asks the cache first, so that a run after a kill, or with another setting, does only what is not there.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from configs.prep import PrepSettings
from data_prep.base_files import resolve_base
from data_prep.cache import Cache
from data_prep.caption_edits import read_edits
from data_prep.captions import without_trigger
from data_prep.clips import Clip
from data_prep.codec.registry import base_codec_fingerprint
from data_prep.condition_sources.clips import make_conditions, prep_notes, selections_of, wanted_conditions
from data_prep.copies import Copies, copies_of
from data_prep.cut import cut_clips, with_music
from data_prep.dataset_files import NewDataset, is_current, put_in_place
from data_prep.dataset_info import dataset_info
from data_prep.describe import Described, SongAccount, describe_clips, song_accounts
from data_prep.device import pick_device
from data_prep.encode import encode_clips
from data_prep.folders import check_folders, nothing_usable
from data_prep.heard_side import heard_codes
from data_prep.heard_side import notes as pair_notes
from data_prep.lock import only_one
from data_prep.multitracks import own_stems
from data_prep.pairs import asked_pair, with_both
from data_prep.players import make_players
from data_prep.prepared import ClipRow
from data_prep.report import render
from data_prep.scan import Rejection, ScanResult, scan
from data_prep.separate import parse_selection
from data_prep.split import split_tracks
from data_prep.stem_names import read_table
from data_prep.stems import check_published
from data_prep.text_encoders.port import text_encoder_fingerprint
from data_prep.texts import TextState, encode_captions
from data_prep.track_sound import listen_to_tracks
from data_prep.tracks import measure_tracks
from data_prep.versions import Separation, make_versions


@dataclass(frozen=True)
class Heard:
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


def prepare(songs: Path, out: Path, settings: PrepSettings) -> Summary:
    """Make or complete the dataset of a song folder. The song folder is only read.

    Raises:
        UserError: anything a person can mend; what is finished by then is kept.
    """
    started = time.perf_counter()
    found = scan(songs)
    check_folders(songs, out)
    pair = asked_pair(settings)
    selections = [pair.target] if pair else list({s.name: s for s in map(parse_selection, settings.stems.use)}.values())
    read_pair = list(pair.heard) if pair else []
    table = read_table(settings.stem_names)
    if not settings.multitracks:
        check_published([*selections, *read_pair], settings.stems.model)
    device = pick_device(settings.device)
    cache = Cache(out / ".cache")
    with only_one(cache.folder):
        cache.claim()

        # 1. The base decides rate, channels and fingerprints; its models are loaded only where there is work for them.
        files = resolve_base(settings.base, settings.revision)
        codec_name, text_name = base_codec_fingerprint(files), text_encoder_fingerprint(files)
        wanted = wanted_conditions(files.spec, settings)
        read_from = selections_of(wanted, [selection.name for selection in selections])
        check_published(read_from, settings.stems.model)

        # 2. Read and measure the songs.
        tracks, rejected = measure_tracks(
            found.songs, cache, max_track_sec=settings.max_track_sec, workers=settings.workers
        )
        rejected = [*found.rejected, *rejected]

        # 3. Stems of whole tracks, then clips of each version.
        own = own_stems(tracks, pair, table, cache) if pair and settings.multitracks else None
        if own is not None:
            tracks, rejected = own.tracks, [*rejected, *own.rejected]
        tracks, silent = with_music(tracks, settings.segment, files)
        both = list({selection.name: selection for selection in [*selections, *read_pair, *read_from]}.values())
        if own is not None:
            with_clips = {track.source_sha256 for track in tracks}
            made = Separation([v for v in own.versions if v.track.source_sha256 in with_clips], None)
        else:
            made = make_versions(tracks, both, settings.stems, cache, device=device, seed=settings.seed)
        learned = {selection.name for selection in selections}
        versions = [version for version in made.versions if version.stems in learned]
        clips, without = cut_clips(versions, settings.segment, files)
        if pair is not None:
            silence_db = settings.segment.silence_db
            clips, alone = with_both(clips, pair, made.versions, files.spec.channels, silence_db)
            without = [*without, *alone]
        rejected = sorted([*rejected, *silent, *without], key=lambda r: (r.where, r.what, r.why))
        if not clips:
            raise nothing_usable(songs, rejected, found.passed_over)

        # 4. What each clip is: features, tags, captions.
        sounds = listen_to_tracks(tracks, versions, cache, workers=settings.workers)
        edits = read_edits(settings.captions.edits)
        described = describe_clips(clips, sounds.tempi, settings, cache, edits.captions, channels=files.spec.channels)
        rejected += edits.unused({clip.id for clip in clips})
        accounts = song_accounts([clip.version.track for clip in clips], settings, cache)

        # 5. What the model sees: codec tokens, text states, and what else it follows.
        codes = encode_clips(clips, files, codec_name, cache, device=device, batch_size=settings.batch_size)
        captions = [caption for d in described.values() for caption in d.captions]
        bare = {without_trigger(caption, settings.captions.trigger) for caption in captions} - {""}
        alone = {settings.captions.trigger} - {""}
        texts = encode_captions([*captions, *bare, *alone], files, text_name, cache, device=device)

        conditions = make_conditions(wanted, clips, made.versions, cache)
        notes = prep_notes(wanted, conditions)
        if pair is not None:
            heard_side = heard_codes(clips, pair, made.versions, files, codec_name, cache, device=device)
            conditions, notes = {**conditions, **heard_side}, {**notes, **pair_notes(pair, heard_side, files)}

        # 6. The dataset, unless the very same one is there.
        heard = Heard(files.spec.channels, copies_of(tracks, sounds.same))
        rows = _rows(clips, described, texts, heard, settings, {i: clip.shape[1] for i, clip in codes.items()})
        info = dataset_info(
            settings,
            files,
            codec=codec_name,
            text_encoder=text_name,
            separator=made.separator,
            conditions=notes,
        )
        states = {state.file_name: state.path for state in texts.values()}
        new = NewDataset(rows, rejected, codes, states, info, accounts, conditions)
        content = new.content()
        unchanged = is_current(out, content)
        if not unchanged:
            players = make_players(rows, clips, codes, files, device)
            put_in_place(out, cache, new, content, lambda: render(rows, rejected, info, players, accounts, found))
    with_values = {kind: len(values) for kind, values in conditions.items()}
    return Summary(out, rows, rejected, time.perf_counter() - started, unchanged, found, accounts, with_values)


def _rows(
    clips: Sequence[Clip],
    described: dict[str, Described],
    texts: dict[str, TextState],
    heard: Heard,
    settings: PrepSettings,
    n_frames: dict[str, int],
) -> list[ClipRow]:
    """The lines of clips.jsonl, by source and position."""
    seconds: dict[str, float] = {}
    for clip in clips:
        music = heard.copies.music[clip.version.track.source_sha256]
        seconds[music] = seconds.get(music, 0.0) + clip.segment.duration_sec
    splits = split_tracks(seconds, settings.validation_fraction, settings.seed)
    rows = []
    for clip in clips:
        track, said = clip.version.track, described[clip.id]
        flags = [*clip.version.scan.heard(heard.channels).flags, *heard.copies.flags[track.source_sha256]]
        flags += said.flags
        flags += ["caption_cut"] if any(texts[caption].cut for caption in said.captions) else []
        row = ClipRow(
            id=clip.id,
            source=track.song.relative,
            source_sha256=track.source_sha256,
            start_sec=round(clip.segment.start_sec, 6),
            duration_sec=round(clip.segment.duration_sec, 6),
            n_frames=n_frames[clip.id],
            stems=clip.version.stems,
            split=splits[heard.copies.music[track.source_sha256]],
            captions=said.captions,
            loudness_lufs=said.loudness_lufs,
            tempo_bpm=said.tempo_bpm,
            key=said.key,
            tags=said.tags,
            flags=flags,
            heard=said.heard,
        )
        rows.append(row)
    return rows
