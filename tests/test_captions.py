import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.prep import CaptionSettings
from data_prep.captions import CAPTIONERS, ClipFacts, compose, says_trigger, with_trigger, without_trigger
from data_prep.features import Features
from data_prep.tags import normalise, plain_text

TRIGGER = "in the style of mine"
MEASURED = Features(121.6, 0.8, "A minor", 0.2, -8.0, 2000.0, 0.5)
TAGS = {"artist": "Jane Doe", "title": "Night Train", "genre": "Blues", "mood": "Sad", "bpm": "90", "key": "E major"}
FULL = ClipFacts(own=["slow ballad, piano"], tags=TAGS, features=MEASURED)


def captions(facts: ClipFacts, seed: int = 0, clip_id: str = "x", **settings: object) -> list[str]:
    return compose(facts, CaptionSettings(**{"trigger": TRIGGER, **settings}), seed, clip_id)  # pyright: ignore[reportArgumentType]


def test_own_words_come_first_and_lead() -> None:
    found = captions(FULL, variants=8)
    assert found[0] == f"slow ballad, piano, {TRIGGER}"
    assert all(text.startswith("slow ballad, piano, ") for text in found)
    assert 4 <= len(found) <= 8 and len(set(found)) == len(found)


def test_each_source_alone() -> None:
    assert captions(FULL, sources=["own"]) == [f"slow ballad, piano, {TRIGGER}"]
    tags = captions(FULL, sources=["tags"])
    assert tags[0] == f"sad blues, 90 bpm, in E major, {TRIGGER}" and len(tags) == 2
    said = captions(FULL, sources=["features"])[0]
    assert said == f"mid-tempo, 122 bpm, in A minor, loud, bright sound, percussive, {TRIGGER}"


def test_a_more_trusted_source_silences_what_is_measured() -> None:
    for text in captions(FULL, variants=32):
        assert "122 bpm" not in text and "A minor" not in text
    own = ClipFacts(own=["a tune of 100 BPM in b-flat minor"], features=MEASURED)
    assert not any("122" in text or "A minor" in text for text in captions(own, variants=32))
    assert any("122 bpm" in text for text in captions(FULL, sources=["own", "features"], variants=32))


@pytest.mark.parametrize(
    ("own", "said", "unsaid"),
    [
        ("140bpm techno", ["bright sound"], ["122", "90", "mid-tempo"]),
        ("in Em, slow", ["90 bpm"], ["A minor", "E major", "mid-tempo"]),
        ("a-Moll, bpm: 100", ["loud"], ["in A minor", "E major", "122", "90"]),
        ("08A", ["90 bpm"], ["in A minor", "E major"]),
        ("from 80-90 bpm to A minor and C major", ["blues"], ["122", "in E", "in A"]),
        ("tempo unknown bpm", ["in E major"], ["122", "90"]),
    ],
)
def test_what_the_owner_states_is_not_stated_again(own: str, said: list[str], unsaid: list[str]) -> None:
    for sources in (["own", "tags", "features"], ["features", "tags", "own"]):
        found = captions(ClipFacts([own], TAGS, features=MEASURED), sources=sources, variants=32)
        assert any(own in text for text in found)
        rest = " ".join(found).replace(own, "")
        assert all(word in rest for word in said) and not any(word in rest for word in unsaid), rest


def test_the_same_from_two_sources_is_no_contradiction() -> None:
    tags = {"genre": "Techno 140bpm", "bpm": "140", "mood": "slow"}
    found = captions(ClipFacts(["140 bpm, slow"], tags), variants=32)
    assert any("slow techno 140bpm" in text for text in found) and not any("140 bpm, 140" in text for text in found)
    fast = ClipFacts(["fast punk"], {"genre": "Downtempo", "bpm": "70"}, features=Features(75.0, 0.9))
    assert captions(fast, variants=32) == [f"fast punk, {TRIGGER}"]


def test_a_tempo_in_the_trigger_is_the_only_one() -> None:
    for text in captions(FULL, trigger="at 140 BPM in Em", variants=32):
        assert "90 bpm" not in text and "122" not in text and "E major" not in text


def test_artist_and_title_are_never_said() -> None:
    for text in captions(FULL, variants=32) + captions(FULL, sources=["tags"]):
        assert "Jane" not in text and "Night Train" not in text


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (Features(80.0, 0.8), "slow, 80 bpm"),
        (Features(160.0, 0.8), "fast, 160 bpm"),
        (Features(160.0, 0.1), ""),
        (Features(key="C major", key_confidence=0.04), ""),
        (Features(key="C major", key_confidence=0.06), "in C major"),
        (Features(loudness_lufs=-25.0, brightness_hz=300.0, percussive_share=0.01), "quiet, dark sound, sustained"),
        (Features(loudness_lufs=-14.0, brightness_hz=800.0, percussive_share=0.2), ""),
        (Features(), ""),
    ],
)
def test_thresholds(features: Features, expected: str) -> None:
    found = CAPTIONERS["features"].describe(ClipFacts(features=features), random.Random(0))
    assert (found[0] if found else "") == expected


def test_stems_are_named() -> None:
    drums = ClipFacts(own=["heavy rock"], stems="bass+drums")
    assert captions(drums) == [f"heavy rock, bass and drums only, {TRIGGER}"]
    assert captions(ClipFacts(own=["instrumental rock"], stems="instrumental")) == [f"instrumental rock, {TRIGGER}"]
    assert captions(ClipFacts(stems="drums")) == [f"drums only, {TRIGGER}"]


def test_nothing_known() -> None:
    assert captions(ClipFacts()) == [TRIGGER]
    assert captions(ClipFacts(), trigger="") == ["music"]
    assert captions(ClipFacts(own=["  ", "\0"]), sources=[]) == [TRIGGER]


def test_same_seed_same_captions() -> None:
    assert captions(FULL, variants=32) == captions(FULL, variants=32)
    facts = ClipFacts(tags=TAGS, features=MEASURED)
    assert len({tuple(captions(facts, seed, clip)) for seed in range(3) for clip in "abc"}) > 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("slow", "slow, in mine"),
        ("slow, in mine", "slow, in mine"),
        ("in mine: slow", "in mine: slow"),
        ("slow, In Mine, piano", "slow, piano, in mine"),
        ("in mine, slow, in mine", "slow, in mine"),
        ("slow.", "slow, in mine"),
        ("begin miner", "begin miner, in mine"),
        ("IN MINE", "in mine"),
        ("", "in mine"),
    ],
)
def test_trigger_placement(text: str, expected: str) -> None:
    assert with_trigger(text, "in mine") == expected


@pytest.mark.parametrize(
    "given",
    [
        "in the style of mine ",
        "  in  the\tstyle\xa0of\u2009mine\n",
        "in the style of mine\u200b",
        "\ufeffin the style of mine",
    ],
)
def test_the_trigger_is_normalised_in_the_settings(given: str) -> None:
    assert CaptionSettings(trigger=given).trigger == TRIGGER
    for text in captions(FULL, trigger=given, variants=8):
        assert says_trigger(text, given) and text.count(TRIGGER) == 1
        assert TRIGGER not in without_trigger(text, given) and not says_trigger(without_trigger(text, given), TRIGGER)


def test_accents_and_quotes_of_a_trigger_do_not_count() -> None:
    composed, split = "dad\u2019s caf\xe9-style", "Dad's cafe\u0301\u2010style"
    assert CaptionSettings(trigger=split).trigger == "Dad's caf\xe9\u2010style"
    for one, other in ((composed, split), (split, composed)):
        assert says_trigger(f"slow, {one}, piano", other)
        assert without_trigger(f"slow, {one}, piano", other) == "slow, piano"
    assert with_trigger(f"slow {split}", composed) == f"slow, {composed}"


def test_a_trigger_that_says_nothing_or_too_much_is_refused() -> None:
    assert CaptionSettings(trigger="").trigger == ""
    for trigger in (" ", "\xa0\u200b", "x" * 1001):
        with pytest.raises(ValueError, match=r"says nothing|too long"):
            CaptionSettings(trigger=trigger)


@settings(deadline=None)
@given(st.text(alphabet="ab ,-<.\xa0", max_size=8), st.text(alphabet="ab ,-<.\xa0", max_size=30))
def test_nothing_is_left_of_the_trigger(trigger: str, text: str) -> None:
    rest = without_trigger(text, trigger)
    assert not says_trigger(rest, trigger) and without_trigger(rest, trigger) in (rest, rest.rstrip(" ,;:."))
    if says_trigger(trigger, trigger):
        assert says_trigger(with_trigger(text, trigger), trigger)


WORDS = st.text(alphabet="ab ,.;in mIMe\n\0é", max_size=40)


@given(
    own=st.lists(WORDS, max_size=4),
    genre=WORDS,
    variants=st.integers(1, 32),
    trigger=st.sampled_from([TRIGGER, "sks", "x.y*"]),
)
def test_every_caption_has_the_trigger_exactly_once(own: list[str], genre: str, variants: int, trigger: str) -> None:
    facts = ClipFacts(own=[*own, f"a {trigger} b {trigger.upper()}"], tags={"genre": genre}, features=MEASURED)
    found = captions(facts, trigger=trigger, variants=variants)
    assert 1 <= len(found) <= variants
    assert len({text.casefold() for text in found}) == len(found)
    for text in found:
        assert text.lower().count(trigger) == 1 and trigger in text
        assert "\n" not in text and "\0" not in text


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"TBPM": "128.00", "initialkey": "8A"}, {"bpm": "128", "key": "A minor"}),
        ({"bpm": "0"}, {}),
        ({"bpm": "fast"}, {}),
        ({"key": "Bbm"}, {"key": "B flat minor"}),
        ({"key": "F#"}, {"key": "F sharp major"}),
        ({"key": "8B"}, {"key": "C major"}),
        ({"key": "12A"}, {"key": "C sharp minor"}),
        ({"key": "D-flat major"}, {"key": "C sharp major"}),
        ({"key": "c-moll"}, {"key": "C minor"}),
        ({"key": "o"}, {}),
        ({"genre": "Other"}, {}),
        ({"genre": "visit www.example.com"}, {}),
        ({"genre": " Deep\nHouse\0 "}, {"genre": "Deep House"}),
        ({"date": "1999-04-01"}, {"year": "1999"}),
        ({"comment": "ripped by x", "encoder": "Lavf"}, {}),
    ],
)
def test_tags(tags: dict[str, str], expected: dict[str, str]) -> None:
    assert normalise(tags, {}) == expected


def test_fields_win_over_tags() -> None:
    assert normalise({"genre": "Rock", "artist": "A"}, {"Genre": "Blues"}) == {"genre": "Blues", "artist": "A"}
    assert normalise({"genre": "Rock"}, {"genre": "unknown"}) == {"genre": "Rock"}


@given(st.text(max_size=400))
def test_plain_text_is_clean_and_bounded(text: str) -> None:
    plain = plain_text(text)
    assert len(plain) <= 120 and plain == " ".join(plain.split()) and plain_text(plain) == plain
    plain.encode()
