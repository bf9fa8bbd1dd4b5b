"""What is said of each clip: features measured, tags read, captions made of both and of the owner's words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from configs.prep import PrepSettings
from data_prep.cache import Cache, work_key
from data_prep.caption_edits import final_captions
from data_prep.captions import ClipFacts, compose
from data_prep.clip_features import clip_features
from data_prep.clips import Clip, changed
from data_prep.decode import AudioError, probe
from data_prep.device import pick_device
from data_prep.listeners.listener import Answer, Known
from data_prep.listeners.listening import listen_to_clips, unwanted
from data_prep.song_words import Reading
from data_prep.stated import Stated
from data_prep.tags import SAID_IN_CAPTIONS, Fact, facts_of, normalise, plain_text
from data_prep.tempo import Tempo
from data_prep.tracks import Track

TAGS_VERSION = 1


@dataclass(frozen=True)
class Described:
    """What clips.jsonl says of a clip beside its place."""

    captions: list[str]
    loudness_lufs: float | None = None
    tempo_bpm: float | None = None
    key: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    listeners: dict[str, dict[str, Any]] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)


def describe_clips(
    clips: Sequence[Clip],
    tempi: Mapping[str, Tempo],
    settings: PrepSettings,
    cache: Cache,
    edited: Mapping[str, Sequence[str]] | None = None,
    *,
    channels: int,
) -> dict[str, Described]:
    """The description of every clip by its id. Captions follow from the rest and are made anew each time, but for
    those that the person edited.
    """
    features = clip_features(clips, tempi, cache, channels=channels, workers=settings.workers)
    tracks = {clip.version.track.source_sha256: clip.version.track for clip in clips}
    tags = {digest: normalise(_in_file(track, cache), track.song.fields) for digest, track in tracks.items()}
    answers = _answers(clips, tags, settings, cache)
    described = {}
    for clip in clips:
        track, measured = clip.version.track, features[clip.id]
        known, heard = answers[clip.id]
        said = [answer for answer in heard.values() if "listeners" in settings.captions.sources]
        facts = ClipFacts(known.own, known.tags, measured, known.stems, answers=said)
        written = (edited or {}).get(clip.id)
        described[clip.id] = Described(
            captions=final_captions(written, settings.captions.trigger)
            if written
            else compose(facts, settings.captions, settings.seed, clip.id),
            loudness_lufs=measured.loudness_lufs,
            tempo_bpm=measured.tempo_bpm,
            key=measured.key,
            tags=tags[track.source_sha256],
            listeners={name: answer.to_json(scores=False) for name, answer in heard.items()},
            flags=unwanted(known, heard.values()),
        )
    return described


def _answers(
    clips: Sequence[Clip], tags: Mapping[str, dict[str, str]], settings: PrepSettings, cache: Cache
) -> dict[str, tuple[Known, dict[str, Answer]]]:
    """What is known of each clip, and what every listener says of it."""
    known = {}
    for clip in clips:
        track = clip.version.track
        known[clip.id] = Known(track.song.own_captions, tags[track.source_sha256], clip.version.stems)
    listeners = settings.captions.listeners
    device = str(pick_device(settings.device)) if listeners.use else "cpu"
    heard = listen_to_clips(clips, known, listeners, cache, device=device)
    return {clip.id: (known[clip.id], heard[clip.id]) for clip in clips}


@dataclass(frozen=True)
class SongAccount:
    """What was read of one song, and what became of each thing: a line of songs.jsonl."""

    source: str
    read: list[Reading]


def song_accounts(tracks: Iterable[Track], settings: PrepSettings, cache: Cache) -> list[SongAccount]:
    """An account of every song that has been described: the owner's words first, then the tags in its file."""
    accounts = {}
    for track in tracks:
        if track.song.relative not in accounts:
            read = _own_readings(track, settings) + _tag_readings(track, settings, cache)
            accounts[track.song.relative] = SongAccount(track.song.relative, read)
    return [accounts[source] for source in sorted(accounts)]


def _own_readings(track: Track, settings: PrepSettings) -> list[Reading]:
    facts = {fact.field: fact for fact in facts_of(track.song.fields)}
    said = _said_by_owner(track, settings)
    read = []
    for reading in track.song.read:
        if reading.use == "caption" and "own" not in settings.captions.sources:
            reading = replace(reading, use="not used: captions.sources leaves out own")
        elif reading.use == "":
            reading = replace(reading, use=_use(facts[reading.field], said))
        read.append(reading)
    return read


def _tag_readings(track: Track, settings: PrepSettings, cache: Cache) -> list[Reading]:
    """The tags that may say something of the music; a file holds many others."""
    owned = {fact.name for fact in facts_of(track.song.fields) if fact.text}
    read = []
    in_file = _in_file(track, cache)
    said = _said_by_owner(track, settings)
    for fact in facts_of(in_file):
        if fact.name in owned and fact.text:
            fact = replace(fact, text="", why=f"your own {fact.name} is used")
        if fact.name:
            read.append(Reading("tags in the file", fact.field, plain_text(in_file[fact.field]), _use(fact, said)))
    return read


def _said_by_owner(track: Track, settings: PrepSettings) -> Stated:
    own = track.song.own_captions if "own" in settings.captions.sources else []
    return Stated.by([*own, settings.captions.trigger])


def _use(fact: Fact, said: Stated) -> str:
    if not fact.text:
        return f"not used: {fact.why}"
    texts = {"bpm": f"{fact.text} bpm", "key": f"in {fact.text}"}
    if fact.name in SAID_IN_CAPTIONS and not said.fits(texts.get(fact.name, fact.text)):
        return f"not used: your own words state another {fact.name}"
    return f"{fact.name} ({fact.why})" if fact.why else fact.name


def _in_file(track: Track, cache: Cache) -> dict[str, str]:
    """The tags in a song's file; its header is read once."""
    key = work_key(TAGS_VERSION, source=track.source_sha256)
    in_file = cache.read_json("tags", key)
    if in_file is None:
        try:
            in_file = probe(track.song.path).tags
        except (AudioError, OSError) as error:
            raise changed(track.song.relative, error) from error
        cache.write_json("tags", key, in_file)
    return in_file
