"""Musical keys as people and programs write them come out under one name, from fields and from free words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.musical_keys import KEY_NAMES, find_keys, read_key

FORMS = {
    "A minor": ["A Minor", "a minor", "Am", "A min", "A m", "Amin", "8A", "08A", "8a", "1m", "01m", "a-Moll", "A-moll",
                "la minore", "La mineur", "la menor", "key: Am", "in A minor", "8A/Am", "a", "AMIN"],
    "C major": ["C Major", "C", "C maj", "CM", "8B", "1d", "C-Dur", "do maggiore", "ut majeur", "do mayor", "dó maior"],
    "F sharp minor": ["F# Minor", "F♯m", "F sharp minor", "F-sharp minor", "fis-Moll", "Fis moll", "11A", "4m",
                      "fa diesis minore", "fa dièse mineur", "fa# menor", "Gbm", "G♭ minor", "ges-moll"],
    "B flat major": ["Bb", "B♭ Major", "B-flat major", "B-Dur", "si bémol majeur", "si bemolle maggiore", "6B", "11d",
                     "A# major", "Ais-Dur", "Bes", "sib majeur"],
    "B minor": ["Bm", "B minor", "h-Moll", "H moll", "si minore", "10A", "3m"],
    "B flat minor": ["b-Moll", "Bbm", "3A", "8m"],
    "E flat major": ["Es-Dur", "Es", "Eb", "D# maj", "mi bémol majeur", "5B"],
    "A flat major": ["As-Dur", "Ab major", "la bemol mayor", "4B", "As"],
    "C sharp minor": ["cis-Moll", "C#m", "Db minor", "do# mineur", "12A", "C♯ Minor."],
}  # fmt: skip


@pytest.mark.parametrize(("key", "text"), [(key, text) for key, texts in FORMS.items() for text in texts])
def test_fields(key: str, text: str) -> None:
    assert read_key(text) == key
    assert read_key(f"  {text} ") == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "o",
        "none",
        "13A",
        "0A",
        "A minor / C major",
        "fast",
        "unknown",
        "mi casa",
        "Am7 D G",
        "J minor",
        "minor",
        "-1",
    ],
)
def test_what_states_no_single_key(text: str) -> None:
    assert read_key(text) is None


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("slow ballad in Em, piano", ["E minor"]),
        ("a sad tune in a minor", ["A minor"]),
        ("Ballade in fis-Moll", ["F sharp minor"]),
        ("canzone in la minore, lenta", ["A minor"]),
        ("chanson en si bémol majeur", ["B flat major"]),
        ("key of F#, dark", ["F sharp major"]),
        ("Key: B♭", ["B flat major"]),
        ("techno, 8A, 128 bpm", ["A minor"]),
        ("open key 6d", ["B major"]),
        ("from C minor to E-flat major", ["C minor", "E flat major"]),
        ("E minor, then again Em", ["E minor"]),
        ("recorded at 10 am with a mi", []),
        ("in the style of mine", []),
        ("begin in a room of age", []),
        ("major label, minor flaws", []),
        ("Cmaj7 and F#m7b5 chords", []),
        ("B\N{COMBINING ACUTE ACCENT} minor hitch", []),
    ],
)
def test_free_words(text: str, keys: list[str]) -> None:
    assert find_keys(text) == keys


@given(st.sampled_from(KEY_NAMES), st.sampled_from(["major", "minor"]))
def test_our_own_names_are_read_back(note: str, mode: str) -> None:
    assert read_key(f"{note} {mode}") == f"{note} {mode}"
    assert find_keys(f"sad, in {note} {mode}, loud") == [f"{note} {mode}"]


def test_the_two_circles_of_fifths_name_all_keys() -> None:
    for sides in ("AB", "md"):
        assert len({read_key(f"{number}{side}") for number in range(1, 13) for side in sides}) == 24
    assert all(read_key(f"{(n + 6) % 12 + 1}A") == read_key(f"{n}m") for n in range(1, 13))


@given(st.text(max_size=60))
def test_any_text_is_read_without_complaint(text: str) -> None:
    assert read_key(text) is None or " " in str(read_key(text))
    assert all(key.endswith(("major", "minor")) for key in find_keys(text))
