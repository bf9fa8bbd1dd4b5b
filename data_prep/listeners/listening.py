"""Clips → what the listeners say of them: each answer filtered, kept in the cache, and there again on the next run.

A listener is loaded only when a clip is new to it. Clips of a version are read in one pass over its file, in batches as
large as the listener wants; each batch is stored when it is done, so that a run that was stopped goes on there.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np

from configs.listeners import ListenerSettings
from data_prep.cache import Cache, work_key
from data_prep.clips import Clip, changed, read_clips
from data_prep.decode import AudioError
from data_prep.listeners.listener import VOCALS_FOUND, Answer, Known, Listener
from data_prep.listeners.registry import Wanted, listener_fingerprint, load_listener, parse_wanted
from data_prep.listeners.word_filter import filtered
from data_prep.progress import Stage, stage
from data_prep.stems import INSTRUMENTAL

LISTENING_VERSION = 1


@dataclass(frozen=True)
class _Job:
    """One listener and the clips that are new to it."""

    wanted: Wanted
    settings: ListenerSettings
    device: str
    keys: Mapping[str, str]
    known: Mapping[str, Known]


def listen_to_clips(
    clips: Sequence[Clip], known: Mapping[str, Known], settings: ListenerSettings, cache: Cache, *, device: str = "cpu"
) -> dict[str, dict[str, Answer]]:
    """What each listener says of every clip: clip id → listener's name → answer, in the order of `settings.use`.

    Args:
        clips: of any versions.
        known: what is known of each clip, by its id.
        settings: who listens.
        cache: where answers are kept.
        device: where models that are large run.

    Raises:
        UserError: no such listener, its weights are out of reach, or a song changed since it was measured.
    """
    found: dict[str, dict[str, Answer]] = {clip.id: {} for clip in clips}
    for wanted in parse_wanted(settings.use):
        fingerprint = listener_fingerprint(wanted, settings)
        keys = {clip.id: work_key(LISTENING_VERSION, **clip.place, listener=fingerprint) for clip in clips}
        job = _Job(wanted, settings, device, keys, known)
        with stage(f"{wanted.name} listens", len(clips), unit="clips") as progress:
            for clip in clips:
                kept = cache.read_json("listeners", keys[clip.id])
                if kept is not None:
                    found[clip.id][wanted.name] = Answer.from_json(kept)
                    progress.advance(reused=True)
            todo = [clip for clip in clips if wanted.name not in found[clip.id]]
            for clip, heard in _listen(todo, job, cache, progress):
                found[clip.id][wanted.name] = heard
    return {
        clip_id: {name: filtered(heard, known[clip_id]) for name, heard in answers.items()}
        for clip_id, answers in found.items()
    }


def unwanted(known: Known, answers: Iterable[Answer]) -> list[str]:
    """Flags of a clip where something was found that its owner did not ask for: a voice in what should have none."""
    said = " ".join([*known.own, *known.tags.values()]).lower()
    instrumental = known.stems == INSTRUMENTAL or re.search(r"\b(instrumental|no vocals|without vocals)\b", said)
    found = any(VOCALS_FOUND in answer.flags for answer in answers)
    return [VOCALS_FOUND] if instrumental and found else []


def _listen(clips: Sequence[Clip], job: _Job, cache: Cache, progress: Stage) -> Iterator[tuple[Clip, Answer]]:
    if not clips:
        return
    listener = load_listener(job.wanted, job.settings, job.device)
    audio = _audio(clips, listener)
    while batch := list(islice(audio, listener.batch_size)):
        answers = listener.listen([samples for _, samples in batch], [job.known[clip.id] for clip, _ in batch])
        for (clip, _), heard in zip(batch, answers, strict=True):
            cache.write_json("listeners", job.keys[clip.id], heard.to_json())
            progress.advance()
            yield clip, heard


def _audio(clips: Sequence[Clip], listener: Listener) -> Iterator[tuple[Clip, np.ndarray]]:
    """The mono audio of each clip; those of one version in one pass."""
    ordered = sorted(clips, key=lambda clip: (clip.version.key, clip.segment.start_sec))
    for _, of_version in groupby(ordered, key=lambda clip: clip.version.key):
        group = list(of_version)
        version = group[0].version
        read = read_clips(
            version.path, [clip.segment for clip in group], sample_rate_hz=listener.sample_rate_hz, channels=1
        )
        try:
            for clip, samples in zip(group, read, strict=True):
                yield clip, samples[0]
        except (AudioError, OSError) as error:
            raise changed(version.track.song.relative, error) from error
