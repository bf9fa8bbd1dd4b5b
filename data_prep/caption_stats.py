"""What the captions of a dataset say as a whole: what is said how often, what of every clip, what never varies.

What is said of every clip cannot be told apart from the trigger: an adapter learns both together, and a prompt without
those words will sound less like the person. What never varies teaches nothing about itself: of a dataset in one key, an
adapter learns that key, whatever a prompt asks for.

A phrase is what stands between commas and full stops; numbers count as one phrase each, whatever their value ("98 bpm"
and "120 bpm" are both "… bpm", and vary).
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data_prep.captions import says_trigger, without_trigger
from data_prep.prepared import ClipRow
from data_prep.stems import MIX

MIN_CLIPS = 2
_SPLIT = re.compile(r"\s*[,;:。、]\s*|[.!?](?:\s+|$)")
_MOST_WORDS = 6


@dataclass(frozen=True)
class CaptionStats:
    """Counts over the clips of a dataset; shares are of clips."""

    clips: int
    captions: int
    distinct: int
    with_trigger: int
    """Captions that say the trigger."""
    mean_words: float
    phrases: dict[str, float]
    """Each phrase and the share of clips of which it is said, the most frequent first."""
    always: list[str]
    """Said of every clip, in any of its captions: learnt as if it belonged to the trigger."""
    in_every_caption: list[str]
    """Of these, what stands in every caption: there is no clip and no wording without it."""
    constant: dict[str, str]
    """What was measured or stated and has one value for all clips: name and value."""
    alike: int
    """Clips whose captions, without the trigger, are exactly those of another clip of another song."""


def caption_stats(rows: Sequence[ClipRow], trigger: str) -> CaptionStats:
    """Count what captions say. With fewer than two clips nothing is said of "every" clip."""
    by_clip = [[_phrases(without_trigger(text, trigger)) for text in row.captions] for row in rows]
    said_of = Counter(phrase for captions in by_clip for phrase in {p for caption in captions for p in caption})
    texts = [text for row in rows for text in row.captions]
    n = len(rows)
    enough = n >= MIN_CLIPS
    always = [phrase for phrase, count in said_of.items() if count == n and enough]
    everywhere = [p for p in always if all(p in caption for captions in by_clip for caption in captions)]
    return CaptionStats(
        clips=n,
        captions=len(texts),
        with_trigger=sum(says_trigger(text, trigger) for text in texts),
        distinct=len({text.casefold() for text in texts}),
        mean_words=sum(len(text.split()) for text in texts) / max(1, len(texts)),
        phrases={phrase: count / n for phrase, count in said_of.most_common()},
        always=sorted(always),
        in_every_caption=sorted(everywhere),
        constant=_constant(rows) if enough else {},
        alike=_alike(rows, trigger),
    )


def _phrases(text: str) -> set[str]:
    """The phrases of one caption; of a long sentence, its single words of more than three letters."""
    found: set[str] = set()
    for part in filter(None, _SPLIT.split(text.casefold())):
        whole = re.sub(r"\d+(?:[.,]\d+)?", "…", " ".join(part.split()))
        words = whole.split()
        found |= {whole} if len(words) <= _MOST_WORDS else {word for word in words if len(word) > 3}
    return found


def _constant(rows: Sequence[ClipRow]) -> dict[str, str]:
    return {name: values[0] for name, values in _facts(rows) if len(set(values)) == 1 and values[0]}


def _facts(rows: Sequence[ClipRow]) -> Iterator[tuple[str, list[str]]]:
    yield "key", [row.key or "" for row in rows]
    yield "tempo", [f"{round(row.tempo_bpm)} bpm" if row.tempo_bpm else "" for row in rows]
    yield "loudness", ["" if row.loudness_lufs is None else f"{round(row.loudness_lufs)} LUFS" for row in rows]
    yield "stems", ["" if row.stems == MIX else row.stems for row in rows]
    for name in ("genre", "mood", "instruments"):
        yield name, [row.tags.get(name, "") for row in rows]


def _alike(rows: Sequence[ClipRow], trigger: str) -> int:
    songs: dict[frozenset[str], set[str]] = {}
    keys = [frozenset(without_trigger(text, trigger).casefold() for text in row.captions) for row in rows]
    for row, key in zip(rows, keys, strict=True):
        songs.setdefault(key, set()).add(row.source_sha256)
    return sum(len(songs[key]) > 1 for key in keys)
