"""What is said of each clip: features measured, tags read, captions made of both and of the owner's words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from configs.prep import PrepSettings
from data_prep.cache import Cache, work_key
from data_prep.captions import ClipFacts, compose
from data_prep.clip_features import clip_features
from data_prep.clips import Clip, changed
from data_prep.decode import AudioError, probe
from data_prep.tags import normalise
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


def describe_clips(
    clips: Sequence[Clip], tempi: Mapping[str, Tempo], settings: PrepSettings, cache: Cache, *, channels: int
) -> dict[str, Described]:
    """The description of every clip by its id. Captions follow from the rest and are made anew each time."""
    features = clip_features(clips, tempi, cache, channels=channels, workers=settings.workers)
    tracks = {clip.version.track.source_sha256: clip.version.track for clip in clips}
    tags = {digest: _tags(track, cache) for digest, track in tracks.items()}
    described = {}
    for clip in clips:
        track, measured = clip.version.track, features[clip.id]
        facts = ClipFacts(track.song.own_captions, tags[track.source_sha256], measured, clip.version.stems)
        described[clip.id] = Described(
            captions=compose(facts, settings.captions, settings.seed, clip.id),
            loudness_lufs=measured.loudness_lufs,
            tempo_bpm=measured.tempo_bpm,
            key=measured.key,
            tags=tags[track.source_sha256],
        )
    return described


def _tags(track: Track, cache: Cache) -> dict[str, str]:
    """Tags of the file and the owner's fields under common names; the file's header is read once."""
    key = work_key(TAGS_VERSION, source=track.source_sha256)
    in_file = cache.read_json("tags", key)
    if in_file is None:
        try:
            in_file = probe(track.song.path).tags
        except (AudioError, OSError) as error:
            raise changed(track.song.relative, error) from error
        cache.write_json("tags", key, in_file)
    return normalise(in_file, track.song.fields)
