"""What the text side of a clip says: wordings made from the owner's words, tags, what listeners found and measured
features, in that order of trust.

A `Captioner` turns the facts of a clip into wordings; there are four, and room for more. `compose` joins them: the
most trusted one leads, the others add detail, and the trigger is in every caption exactly once. The artist's name and
the title never become caption text: an adapter should learn a sound, not to answer to a person's name. Whoever wants
them there writes them in a caption of their own.

A caption does not contradict itself. Tempo and key are stated once: what the owner's words or the trigger state is
never stated again by tags, nor what these state by what was measured. Genre, mood, instruments and voice may be said by
several, but what is trusted less never says the opposite of what is trusted more: beside "jazz ballad" no "techno",
beside "solo piano" no "guitar". `Stated` decides it for every part of every caption.

The words for measured features and where they begin (facts in `features`; set by judgement from the measured
values of 16 rock and acoustic clips):

    tempo          slow < 90 bpm ≤ mid-tempo < 125 ≤ fast (`tempo_words`); said only with a confidence of 0.25
    key            said only with a margin of 0.05 over the next key
    loudness       quiet ≤ −20 LUFS; loud ≥ −9 LUFS
    brightness     dark ≤ 400 Hz; bright ≥ 1500 Hz
    percussive     sustained ≤ 0.08; percussive ≥ 0.45
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import combinations
from typing import Protocol

from configs.normal_text import folded, normal_text
from configs.prep import CaptionSettings
from data_prep.features import Features
from data_prep.listeners.listener import Answer
from data_prep.listeners.word_filter import joined, sentences
from data_prep.stated import Stated
from data_prep.stems import INSTRUMENTAL, MIX
from data_prep.tags import plain_text
from data_prep.tempo_words import contradicts, speed_of

TEMPO_CONFIDENCE = 0.25
KEY_MARGIN = 0.05
QUIET_LUFS, LOUD_LUFS = -20.0, -9.0
DARK_HZ, BRIGHT_HZ = 400.0, 1500.0
SUSTAINED_SHARE, PERCUSSIVE_SHARE = 0.08, 0.45
MAX_CHARS = 1000
NOTHING_KNOWN = "music"


@dataclass(frozen=True)
class ClipFacts:
    """All that captioners may use of one clip."""

    own: Sequence[str] = ()
    """The owner's captions of the song."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """From `tags.normalise`."""
    features: Features = Features()  # noqa: RUF009 (frozen)
    stems: str = MIX
    """Which version of the track the clip is from: the name of a `Selection`."""
    trigger: str = ""
    """Words that will be in every caption, so that no part says what they say."""
    answers: Sequence[Answer] = ()
    """What listeners said, filtered, in the order in which they are trusted."""


class Captioner(Protocol):
    """Makes wordings of one clip from one kind of knowledge; an empty list where it knows nothing."""

    def describe(self, clip: ClipFacts, rng: random.Random) -> list[str]:
        """Wordings without the trigger, the best first. All chance comes from `rng`."""
        ...


class OwnCaptions:
    """The owner's words as they are."""

    def describe(self, clip: ClipFacts, rng: random.Random) -> list[str]:
        """Every caption of the owner, in the owner's order."""
        return [text for text in (plain_text(own, MAX_CHARS) for own in clip.own) if text]


class TagCaptions:
    """Genre, mood, instruments, tempo and key as tags and fields state them, unless the owner's words do."""

    def describe(self, clip: ClipFacts, rng: random.Random) -> list[str]:
        """One wording with everything, and one with the parts in another order."""
        return _orders(_tag_parts(clip.tags, _stated_by_owner(clip)), rng)


class ListenerCaptions:
    """What listeners found: sentences as they are, words as a list, without those that own captions or tags say or
    contradict.
    """

    def describe(self, clip: ClipFacts, rng: random.Random) -> list[str]:
        """For each listener its sentences, or its words in two orders."""
        said = " ".join([*clip.own, *clip.tags.values()])
        trusted = _stated_by_owner(clip)
        _tag_parts(clip.tags, trusted)
        wordings: list[str] = []
        for answer in clip.answers:
            stated = deepcopy(trusted)
            if answer.text:
                wordings.append(joined(list(filter(stated.take, sentences(answer.text)))))
            else:
                new = [word for word in answer.words if not says_trigger(said, word)]
                wordings += _orders(stated.take_each(new), rng)
        return list(dict.fromkeys(filter(None, wordings)))


class FeatureCaptions:
    """What was measured, in words; tempo and key only where no more trusted source has stated them."""

    def describe(self, clip: ClipFacts, rng: random.Random) -> list[str]:
        """One wording with everything, and one with the parts in another order."""
        stated = _stated_by_owner(clip)
        _tag_parts(clip.tags, stated)
        measured = clip.features
        parts = _tempo_words(measured, stated, rng)
        parts += [] if stated.keys else _key_words(measured)
        found = _level(measured.loudness_lufs, QUIET_LUFS, "quiet", LOUD_LUFS, "loud")
        found += _level(measured.brightness_hz, DARK_HZ, "dark sound", BRIGHT_HZ, "bright sound")
        found += _level(measured.percussive_share, SUSTAINED_SHARE, "sustained", PERCUSSIVE_SHARE, "percussive")
        return _orders(parts + stated.take_each(found), rng)


CAPTIONERS: dict[str, Captioner] = {
    "own": OwnCaptions(),
    "tags": TagCaptions(),
    "listeners": ListenerCaptions(),
    "features": FeatureCaptions(),
}


def compose(facts: ClipFacts, settings: CaptionSettings, seed: int, clip_id: str) -> list[str]:
    """Between one and `variants` different captions of a clip, the most trusted first; the same for the same (seed,
    clip).

    Each begins with a wording of the most trusted source that has one: alone first, then with what the others add.
    Stems are named in every caption of a stem clip. With nothing known, the trigger alone is the caption, or else
    "music".
    """
    rng = random.Random(f"{seed} {clip_id}")
    allowed = _allowed(facts, settings)
    known = {name: found for name in settings.sources if (found := CAPTIONERS[name].describe(allowed, rng))}
    texts: dict[str, str] = {}
    for wording in _joined(known, settings.trigger, facts.stems) if known else iter([""]):
        said = ", ".join(filter(None, (wording, _stem_words(facts.stems, wording))))
        text = with_trigger(said, settings.trigger)
        texts.setdefault(text.casefold(), text or NOTHING_KNOWN)
        if len(texts) == settings.variants:
            break
    return list(texts.values())


def with_trigger(text: str, trigger: str) -> str:
    """The text with the trigger in it exactly once, spelled as given: where it stands already, or at the end."""
    text, trigger = normal_text(text), normal_text(trigger)
    if not trigger:
        return text
    if _trigger_places(trigger).findall(text) == [trigger]:
        return text
    rest = without_trigger(text, trigger)
    return f"{rest}, {trigger}" if rest else trigger


def says_trigger(text: str, trigger: str) -> bool:
    """Whether the trigger is among the words of the text, however it is spaced, capitalised or encoded."""
    trigger = normal_text(trigger)
    return bool(trigger) and bool(_trigger_places(trigger).search(normal_text(text)))


def without_trigger(text: str, trigger: str) -> str:
    """What the text says besides the trigger, as `normal_text`; nothing when it says nothing else."""
    text, trigger = normal_text(text), normal_text(trigger)
    if not trigger:
        return text
    places = _trigger_places(trigger)
    while True:  # what stood around a trigger may be one itself
        rest = " ".join(places.sub(" ", text).split())
        rest = re.sub(r"\s+([,.;:])", r"\1", rest)
        rest = re.sub(r"([,;:])(?:\s*[,;:])+", r"\1", rest).lstrip(" ,;:").rstrip(" ,;:.")
        if not places.search(rest):
            return rest
        text = rest


def _trigger_places(trigger: str) -> re.Pattern[str]:
    """Where a normal text says a normal trigger: in any case, with straight or curly quotes and any hyphen."""
    before = r"(?<!\w)" if re.match(r"\w", trigger) else ""
    after = r"(?!\w)" if re.search(r"\w$", trigger) else ""
    return re.compile(before + "".join(map(_like, trigger)) + after, re.IGNORECASE)


def _like(character: str) -> str:
    plain = folded(character)
    kin = {"'": "['‘’ʼ]", '"': '["“”]', "-": "[-‐‑‒–]"}
    return kin.get(plain) or re.escape(character)


def _allowed(facts: ClipFacts, settings: CaptionSettings) -> ClipFacts:
    """The facts less those of sources that are switched off, so that these cannot silence another one either."""
    return ClipFacts(
        own=facts.own if "own" in settings.sources else (),
        answers=facts.answers,
        tags=facts.tags if "tags" in settings.sources else {},
        features=facts.features,
        stems=facts.stems,
        trigger=settings.trigger,
    )


def _joined(known: dict[str, list[str]], trigger: str, stems: str) -> Iterator[str]:
    """The leading source's wordings alone, then with one more source, then with more.

    A wording that contradicts the trigger, the owner's words, the stems or an earlier wording is left out of that
    caption, whichever source it is from.
    """
    lead, *others = known
    for extra in range(len(others) + 1):
        for chosen in combinations(others, extra):
            names = (lead, *chosen)
            for index in range(max(len(known[name]) for name in names)):
                wordings = {name: known[name][index % len(known[name])] for name in names}
                stated = Stated.by([trigger, wordings.get("own", ""), _stem_words(stems, "")])
                said = [text for name, text in wordings.items() if name == "own" or stated.take(text)]
                yield ", ".join(said)


def _orders(parts: list[str], rng: random.Random) -> list[str]:
    shuffled = rng.sample(parts, len(parts))
    return list(dict.fromkeys(", ".join(order) for order in (parts, shuffled) if order))


def _stated_by_owner(clip: ClipFacts) -> Stated:
    return Stated.by([*clip.own, clip.trigger, _stem_words(clip.stems, "")])


def _tag_parts(tags: Mapping[str, str], stated: Stated) -> list[str]:
    """What tags say that has not been stated; it counts as stated then."""
    plain = {name: plain_text(value) for name, value in tags.items()}
    mood, genre, instruments = (plain.get(name, "") for name in ("mood", "genre", "instruments"))
    style = " ".join(part.lower() for part in (mood, genre) if part and stated.take(part))
    parts = [style] + ([instruments.lower()] if stated.take(instruments) else [])
    tempo = [f"{plain['bpm']} bpm"] if plain.get("bpm") and not stated.tempo else []
    key = [f"in {plain['key']}"] if plain.get("key") and not stated.keys else []
    return [part for part in parts + [number for number in tempo + key if stated.take(number)] if part]


def _tempo_words(measured: Features, stated: Stated, rng: random.Random) -> list[str]:
    """Speed and number; the number alone where a speed is stated that it goes with, nothing where it does not."""
    bpm, confidence = measured.tempo_bpm, measured.tempo_confidence
    if bpm is None or confidence is None or confidence < TEMPO_CONFIDENCE or stated.tempo:
        return []
    if stated.speeds:
        return [] if contradicts(bpm, stated.speeds) else [f"{round(bpm)} bpm"]
    speed = speed_of(bpm)
    return [speed, f"{round(bpm)} bpm"] if rng.random() < 0.5 else [f"{speed}, {round(bpm)} bpm"]


def _key_words(measured: Features) -> list[str]:
    sure = measured.key is not None and (measured.key_confidence or 0.0) >= KEY_MARGIN
    return [f"in {measured.key}"] if sure else []


def _level(value: float | None, low: float, low_word: str, high: float, high_word: str) -> list[str]:
    if value is None:
        return []
    return [low_word] if value <= low else [high_word] if value >= high else []


def _stem_words(stems: str, text: str) -> str:
    """What a stem clip is, so that it is not taken for the whole recording; nothing where the text says it."""
    if stems == MIX:
        return ""
    words = "instrumental" if stems == INSTRUMENTAL else f"{stems.replace('+', ' and ')} only"
    return "" if words in text.lower() else words
