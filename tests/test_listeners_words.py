"""The filter: names that were made up go, what is heard and the language it is said in stay."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.listeners.listener import Answer, Known
from data_prep.listeners.word_filter import MAX_CHARS, MAX_WORDS, clean_text, clean_words, filtered


def text(said: str, **tags: str) -> str:
    return clean_text(said, tags, [])


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("A slow ballad with piano, in the style of Norah Jones.", "A slow ballad with piano."),
        ("A slow ballad by Norah Jones with soft drums.", "A slow ballad with soft drums."),
        ("Fast rock, reminiscent of Led Zeppelin and Deep Purple, with loud guitars.", "Fast rock, with loud guitars."),
        ("A piece similar to Hans Zimmer.", "A piece."),
        ('The track is titled "Yellow Moon" and has a steady beat.', "The track is and has a steady beat."),
        ("A man sings “I will always love you” over strings.", "A man over strings."),
        ("The guitarist John Mayer plays softly.", "The guitarist plays softly."),
        ("Sure! Here is a caption for the clip: **Dreamy** ambient pads.", "Dreamy ambient pads."),
        ("Caption: bright pop. Bright pop. More at https://example.com/x", "bright pop. More at"),
        ("Upbeat tune from The Beatles, catchy.", "Upbeat tune, catchy."),
    ],
)
def test_invented_names_go(said: str, kept: str) -> None:
    removed: list[str] = []
    assert clean_text(said, {}, removed) == kept


@pytest.mark.parametrize(
    "said",
    [
        "A bossa nova in the style of Brazilian jazz, Hammond organ, 120 BPM in C major.",
        "Drum and bass from Detroit, inspired by Latin music.",
        "Langsame Ballade mit Klavier, Streichern und Gesang.",
        "Une chanson douce avec guitare acoustique et accordéon.",
        "静かなピアノの曲。弦楽器が加わる。",
        "Спокойная мелодия, фортепиано и скрипка.",
        "موسيقى هادئة مع عود",
        "Tempo 92.5 bpm, minor key, R&B and Hip-Hop drums.",
    ],
)
def test_what_is_heard_stays_in_its_language(said: str) -> None:
    removed: list[str] = []
    assert clean_text(said, {}, removed) == said
    assert removed == []


def test_the_songs_own_artist_and_title_go() -> None:
    tags = {"artist": "mina", "title": "sea song", "genre": "folk"}
    assert text("A gentle folk tune, mina's sea song, with guitar.", **tags) == "A gentle folk tune, with guitar."
    removed: list[str] = []
    assert clean_words(["folk", "Mina", "guitar"], tags, removed) == ["folk", "guitar"]
    assert "Mina" in removed


def test_a_title_that_is_a_word_of_music_silences_nothing() -> None:
    assert text("Solo piano, slow.", title="Piano") == "Solo piano, slow."


def test_words_are_few_short_and_once() -> None:
    removed: list[str] = []
    words = ["Piano", "piano", " guitar, ", "x" * 60, "", "♪♪", *(f"word {i}" for i in range(20))]
    kept = clean_words(words, {}, removed)
    assert kept[:2] == ["Piano", "guitar"] and len(kept) == MAX_WORDS
    assert "x" * 60 in removed and "word 19" in removed


def test_long_texts_end_with_a_sentence() -> None:
    said = " ".join(f"Sentence number {i} says a little about the sound." for i in range(30))
    kept = text(said)
    assert len(kept) <= MAX_CHARS and kept.endswith("sound.")


def test_what_was_taken_out_is_kept_with_the_answer() -> None:
    heard = Answer(words=("jazz",), text="Jazz by Miles Davis.", scores={"jazz": 0.5}, flags=("vocals_found",))
    found = filtered(heard, Known())
    assert (found.text, found.words, found.removed) == ("Jazz.", ("jazz",), ("by Miles Davis",))
    assert found.flags == heard.flags and Answer.from_json(found.to_json()) == found


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_comes_out_short_on_one_line_and_again_the_same(said: str) -> None:
    removed: list[str] = []
    once = clean_text(said, {"artist": "Mina", "title": "[x](y"}, removed)
    assert len(once) <= MAX_CHARS and "\n" not in once and once == once.strip()
