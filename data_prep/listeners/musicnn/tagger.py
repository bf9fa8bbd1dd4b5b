"""The listener that comes with Woodshed: musicnn's tags as caption words, and whether anybody sings."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from data_prep.listeners.listener import VOCALS_FOUND, Answer, Known
from data_prep.listeners.musicnn.log_mel import SAMPLE_RATE_HZ
from data_prep.listeners.musicnn.model import MODELS, score
from data_prep.listeners.musicnn.tags import TAGS
from data_prep.listeners.musicnn.words import FINGERPRINT, MOST_OF_A_KIND, VOICE, VOICE_THRESHOLD, WORDS, Kind

_STORED_SCORE = 0.05
_EVERY = {"msd": 2}
"""Genre and mood change less within a clip than who plays: a quarter of the time saved."""


class Tagger:
    """Hears 16 kHz mono in patches of three seconds; what it says of a clip is the mean over them."""

    name = "musicnn"
    fingerprint = FINGERPRINT
    sample_rate_hz = SAMPLE_RATE_HZ
    batch_size = 8

    def listen(self, audio: Sequence[Float[np.ndarray, " _"]], known: Sequence[Known]) -> list[Answer]:
        """One answer per clip; none depends on what is known."""
        return [answer({name: found.scores for name, found in score(clip, every=_EVERY).items()}) for clip in audio]


def answer(scores: dict[str, Float[np.ndarray, " 50"]]) -> Answer:
    """What may be said for these scores of both models."""
    by_tag = {(name, tag): float(s) for name in MODELS for tag, s in zip(TAGS[name], scores[name], strict=True)}
    voice = max(by_tag[key] for key in VOICE)
    stored = {f"{name} {tag}": s for (name, tag), s in by_tag.items() if s >= _STORED_SCORE}
    flags = (VOCALS_FOUND,) if voice >= VOICE_THRESHOLD else ()
    return Answer(words=tuple(_words(by_tag)), scores={"voice": voice, **stored}, flags=flags)


def _words(scores: dict[tuple[str, str], float]) -> list[str]:
    """The words whose tag is over its threshold, the surest first: by how far over, in odds."""
    sure: dict[str, float] = {}
    kinds: dict[str, Kind] = {entry.word: entry.kind for entry in WORDS}
    for entry in WORDS:
        value = scores[entry.model, entry.tag]
        if value >= entry.threshold:
            sure[entry.word] = max(sure.get(entry.word, 0.0), _odds(value) / _odds(entry.threshold))
    said: list[str] = []
    for word in sorted(sure, key=lambda word: -sure[word]):
        of_kind = [other for other in said if kinds[other] == kinds[word]]
        if len(of_kind) < MOST_OF_A_KIND[kinds[word]]:
            said.append(word)
    order = list(MOST_OF_A_KIND)
    return sorted(said, key=lambda word: order.index(kinds[word]))


def _odds(probability: float) -> float:
    return probability / max(1e-6, 1.0 - probability)
