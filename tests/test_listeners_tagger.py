"""The tagger's words: thresholds, order, limits; the flag for voices; what a clip heard becomes in a dataset."""

import numpy as np
import pytest

from data_prep.listeners.listener import VOCALS_FOUND, Answer, Known, Listener
from data_prep.listeners.listening import unwanted
from data_prep.listeners.musicnn.tagger import Tagger, answer
from data_prep.listeners.musicnn.tags import TAGS
from data_prep.listeners.musicnn.words import MOST_OF_A_KIND, VOICE, WORDS


def scores(**tags: float) -> dict[str, np.ndarray]:
    """By `model_tag`, underscores for spaces."""
    found = {name: np.full(50, 0.01, np.float32) for name in TAGS}
    for key, value in tags.items():
        model, _, tag = key.partition("_")
        found[model][TAGS[model].index(tag.replace("_", " "))] = value
    return found


def test_every_word_names_a_tag_and_a_kind() -> None:
    assert len({(entry.model, entry.tag) for entry in WORDS}) == len(WORDS)
    assert all(entry.tag in TAGS[entry.model] and 0 < entry.threshold < 1 for entry in WORDS)
    assert {entry.kind for entry in WORDS} == set(MOST_OF_A_KIND)
    assert all(tag in TAGS[model] for model, tag in VOICE)
    assert all(len(tags) == len(set(tags)) == 50 for tags in TAGS.values())


def test_words_begin_at_their_threshold() -> None:
    entry = next(entry for entry in WORDS if entry.tag == "piano")
    assert answer(scores(mtt_piano=entry.threshold + 0.01)).words == ("piano",)
    assert answer(scores(mtt_piano=entry.threshold - 0.01)).words == ()
    assert answer(scores()).words == () and answer(scores()).flags == ()


def test_the_surest_of_a_kind_are_said_genre_first() -> None:
    found = answer(scores(mtt_guitar=0.9, mtt_piano=0.6, msd_folk=0.6, msd_jazz=0.7, mtt_classical=0.9, msd_Mellow=0.5))
    assert found.words == ("classical", "folk", "guitar", "piano", "mellow")
    assert "jazz" not in found.words, "two genres are said, the surest"


def test_a_word_from_two_models_is_said_once() -> None:
    assert answer(scores(mtt_rock=0.8, msd_rock=0.8)).words == ("rock",)


@pytest.mark.parametrize("tag", ["mtt_female_voice", "msd_male_vocalists", "mtt_choir"])
def test_voices_are_flagged(tag: str) -> None:
    assert answer(scores(**{tag: 0.5})).flags == (VOCALS_FOUND,)
    assert answer(scores(**{tag: 0.5})).scores["voice"] == pytest.approx(0.5)


def test_a_voice_is_unwanted_where_the_owner_asked_for_none() -> None:
    voice, none = [Answer(flags=(VOCALS_FOUND,))], [Answer()]
    assert unwanted(Known(stems="instrumental"), voice) == [VOCALS_FOUND]
    assert unwanted(Known(own=["an Instrumental tune"]), voice) == [VOCALS_FOUND]
    assert unwanted(Known(tags={"genre": "instrumental rock"}), voice) == [VOCALS_FOUND]
    assert unwanted(Known(stems="instrumental"), none) == []
    assert unwanted(Known(own=["a song"]), voice) == [], "songs have voices"


def test_it_keeps_to_the_port() -> None:
    tagger = Tagger()
    assert isinstance(tagger, Listener)
    t = np.arange(4 * 16_000) / 16_000
    saw = (0.3 * (2 * ((t * 220) % 1) - 1) * (np.sin(2 * np.pi * 2 * t) > 0)).astype(np.float32)
    one, two = tagger.listen([saw, saw], [Known()] * 2)
    assert one == two and {"electronic", "techno"} & set(one.words), "a saw wave in pulses"
