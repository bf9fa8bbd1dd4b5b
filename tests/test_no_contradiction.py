"""Nothing in a caption contradicts the owner's words, nor what a more trusted source says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.prep import CaptionSettings
from data_prep.captions import ClipFacts, compose
from data_prep.features import Features
from data_prep.listeners.listener import Answer
from data_prep.listeners.musicnn.words import WORDS
from data_prep.music_words import absent_instruments, genres, goes_with, instruments, is_exclusive, traits
from data_prep.stated import Stated
from data_prep.tempo_words import find_speeds

LOUD_AND_BRIGHT = Features(170.0, 0.9, "A minor", 0.2, -5.0, 4000.0, 0.6)
QUIET_AND_DARK = Features(60.0, 0.9, "E major", 0.2, -40.0, 200.0, 0.01)


def everything(facts: ClipFacts, **changes: object) -> str:
    return " | ".join(compose(facts, CaptionSettings(variants=32, **changes), 0, "x"))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("own", "said", "unsaid"),
    [
        ("jazz ballad", ["piano", "sad"], ["techno", "rock"]),
        ("solo piano", ["sad"], ["guitar", "strings", "female vocals"]),
        ("rock with a long guitar solo", ["piano", "drums"], ["techno"]),
        ("piano only, jazzy", ["sad"], ["guitar", "drums"]),
        ("Klavier, ohne Gesang", ["guitar", "sad"], ["vocals"]),
        ("fröhlich, mit Gitarre", ["piano", "techno"], ["sad"]),
        ("happy tune", ["piano"], ["sad"]),
        ("aggressive metal", ["guitar"], ["mellow", "techno"]),
        ("instrumental hip-hop", ["piano"], ["vocals", "techno", "rock"]),
        ("a cappella, male choir", ["sad"], ["guitar", "piano", "female"]),
        ("man singing folk", ["guitar"], ["female", "techno"]),
        ("no drums, no guitars or strings", ["piano", "techno"], ["drums", "guitar,", "strings,"]),
        ("drumless trio", ["piano"], [", drums"]),
        ("acoustic set", ["piano"], ["electronic"]),
        ("electronic", ["techno", "piano"], ["rock"]),
        ("deep house", ["electronic", "piano"], ["techno", "rock"]),
        ("synthwave", ["piano"], ["techno", "rock"]),
    ],
)
def test_own_words_win_over_what_a_tagger_finds(own: str, said: list[str], unsaid: list[str]) -> None:
    tagger = ["techno", "rock", "electronic", "guitar", "piano", "strings", "drums", "female vocals", "sad", "mellow"]
    found = everything(ClipFacts([own], answers=[Answer((word,)) for word in tagger])).replace(own, "")
    assert [word for word in said if word not in found] == []
    assert [word for word in unsaid if word in found] == []


def test_a_tagger_may_name_two_genres_that_nobody_contradicts() -> None:
    assert "techno, rock, piano" in everything(ClipFacts(["a tune"], answers=[Answer(("techno", "rock", "piano"))]))
    assert "sad" not in everything(ClipFacts(answers=[Answer(("happy", "sad"))])).replace("happy", "")


def test_own_words_win_over_tags_and_tags_over_the_tagger() -> None:
    tags = {"genre": "Techno", "mood": "happy", "instruments": "guitar"}
    said = everything(ClipFacts(["sad solo piano, jazz"], tags, answers=[Answer(("rock",))]))
    assert said == "sad solo piano, jazz"
    assert "rock" not in everything(ClipFacts(tags=tags, answers=[Answer(("rock", "drums"))]))


def test_sentences_of_a_listener_go_one_by_one() -> None:
    heard = Answer(text="A fast techno track. A piano plays a simple tune. A woman sings.")
    assert "A piano plays a simple tune." in everything(ClipFacts(["instrumental jazz"], answers=[heard]))
    assert "techno" not in everything(ClipFacts(["instrumental jazz"], answers=[heard]))
    assert "sings" not in everything(ClipFacts(["instrumental jazz"], answers=[heard]))
    assert "静かな曲。弦が加わる。" in everything(ClipFacts(["jazz"], answers=[Answer(text="静かな曲。弦が加わる。")]))


def test_measured_words_do_not_contradict() -> None:
    said = everything(ClipFacts(["quiet, dark piece with a sustained drone"], features=LOUD_AND_BRIGHT))
    assert "loud" not in said and "bright" not in said and "percussive" not in said and "fast" in said
    assert "quiet" not in everything(ClipFacts(["loud and bright"], features=QUIET_AND_DARK))


def test_stems_are_what_plays() -> None:
    heard = [Answer(("guitar", "female vocals")), Answer(("drums",))]
    assert "guitar" not in everything(ClipFacts(stems="drums", answers=heard))
    assert "vocals" not in everything(ClipFacts(stems="instrumental", answers=heard))
    assert "female vocals" in everything(ClipFacts(stems="vocals", answers=[Answer(("female vocals",))]))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Drum & Bass", {"drum and bass"}),
        ("R&B ballad", {"r&b"}),
        ("hip-hop", {"hip hop"}),
        ("in my own way", set()),
        ("Filmmusik", {"soundtrack"}),
        ("popular melodies, rocking chairs", set()),
    ],
)
def test_genres(text: str, found: set[str]) -> None:
    assert genres(text) == found


def test_instruments_and_voices() -> None:
    assert instruments("violin, E-Piano and kick") == {"violin", "strings", "piano", "drums"}
    assert instruments("no piano") == set() and absent_instruments("without piano or violin") >= {"piano", "violin"}
    assert traits("tenor saxophone") == {} and traits("alto voice")["singer"] == {"female"}
    assert traits("no vocals")["voice"] == {"instrumental"} and traits("a woman sings")["voice"] == {"sung"}
    assert is_exclusive("just guitar") and not is_exclusive("just what I like") and is_exclusive("vocals only")
    assert not any(
        map(is_exclusive, ("rock with a guitar solo", "Ballade mit Gitarrensolo", "long guitar solos over drums"))
    )
    assert all(map(is_exclusive, ("sad piano solo", "solo piano, with feeling", "Klavier solo")))


PHRASES = [
    "jazz", "techno", "deep house", "rock", "folk", "solo piano", "guitar", "drums", "no drums", "strings", "violin",
    "female vocals", "male vocals", "instrumental", "no vocals", "a cappella", "choir", "happy", "sad", "mellow",
    "energetic", "slow", "fast", "140 bpm", "70 bpm", "in A minor", "in C major", "dark", "bright", "quiet", "loud",
    "acoustic", "electronic", "piano only", "percussive", "sustained", "ballad", "the sea",
]  # fmt: skip
SAID = st.lists(st.sampled_from(PHRASES), max_size=4)
TAGGED = st.lists(st.sampled_from([entry.word for entry in WORDS]), max_size=5, unique=True)


@settings(deadline=None, max_examples=100)
@given(
    own=SAID.map(", ".join),
    tags=st.fixed_dictionaries({}, optional={n: SAID.map(", ".join) for n in ("genre", "mood", "instruments")}),
    tagged=TAGGED,
    sentences=SAID.map(lambda words: " ".join(f"It is {word}." for word in words)),
    features=st.sampled_from([Features(), LOUD_AND_BRIGHT, QUIET_AND_DARK]),
    stems=st.sampled_from(["mix", "instrumental", "drums", "bass+drums", "vocals"]),
)
def test_no_caption_contradicts_the_owner(
    own: str, tags: dict[str, str], tagged: list[str], sentences: str, features: Features, stems: str
) -> None:
    facts = ClipFacts([own], tags, features, stems, answers=[Answer(tuple(tagged)), Answer(text=sentences)])
    stem = {"mix": "", "instrumental": "instrumental", "bass+drums": "bass and drums only"}.get(stems, f"{stems} only")
    stated = Stated.by([own, stem])
    for caption in compose(facts, CaptionSettings(variants=32), 0, "x"):
        added = caption.replace(own, "", 1) if own else caption
        if stated.genres:
            assert all(goes_with(genre, stated.genres) for genre in genres(added)), caption
        if stated.speeds:
            assert find_speeds(added) <= stated.speeds, caption
        for axis, ends in traits(added).items():
            assert ends <= stated.traits.get(axis, ends), caption
        assert not instruments(added) & (stated.absent - instruments(stem)), caption
        if stated.exclusive:
            assert instruments(added) <= stated.instruments, caption
