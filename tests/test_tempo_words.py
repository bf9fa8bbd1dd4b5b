"""Tempi as people and programs write them, from fields and from free words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.tempo_words import contradicts, find_speeds, find_tempi, read_bpm, speed_of, states_tempo


@pytest.mark.parametrize(
    ("text", "bpm"),
    [
        ("140", 140), ("140bpm", 140), ("140 BPM", 140), ("bpm: 140", 140), ("BPM=140", 140), ("139.98", 139.98),
        ("139,98", 139.98), ("128.00", 128), ("~ 90", 90), ("ca. 90 bpm", 90), ("90 beats per minute", 90),
        ("♩ = 120", 120), ("4/4, 120", 120), ("120 / 120 bpm", 120), ("20", 20), ("400", 400), ("140\xa0bpm", 140),
        ("0", None), ("", None), ("fast", None), ("-140", None), ("1400", None), ("19", None), ("140-150", None),
        ("120 (half time 60)", None), ("3:40", None), ("1e99", None), ("nan", None), ("inf", None),
    ],
)  # fmt: skip
def test_fields(text: str, bpm: int | float | None) -> None:
    assert read_bpm(text) == bpm


@pytest.mark.parametrize(
    ("text", "tempi"),
    [
        ("140bpm techno", [140]), ("a groove of 140 BPM", [140]), ("bpm: 140, dark", [140]), ("BPM=139.98", [139.98]),
        ("bpm140", [140]), ("tempo 96", [96]), ("♩=96", [96]), ("jungle at 174, dark", [174]), ("80-90 bpm", [80, 90]),
        ("80/160bpm", [80, 160]), ("a 140-bpm groove", [140]), ("100 beats per minute", [100]), ("140\xa0bpm", [140]),
        ("140 bpm or 140bpm", [140]), ("from 90 bpm to 120 bpm", [90, 120]), ("1000 bpm", [1000]),
        ("in 4/4, of 1999", []), ("at 44.1 kHz", []), ("at 100% volume", []), ("at 440 Hz", []), ("three 12 inch", []),
    ],
)  # fmt: skip
def test_free_words(text: str, tempi: list[int] | list[float]) -> None:
    assert find_tempi(text) == tempi
    assert states_tempo(text) == bool(tempi)


def test_a_tempo_may_be_spoken_of_without_a_number() -> None:
    assert states_tempo("bpm unknown") and not states_tempo("abpms")


def test_words_for_speed() -> None:
    assert find_speeds("a slow Ballad") == {"slow"} and find_speeds("Up-Tempo, lento") == {"fast", "slow"}
    assert find_speeds("breakfast, fastener, slowcore") == set()
    assert [speed_of(bpm) for bpm in (89.9, 90.0, 124.9, 125.0)] == ["slow", "mid-tempo", "mid-tempo", "fast"]
    assert contradicts(160.0, {"slow"}) and contradicts(70.0, {"fast"})
    assert not contradicts(110.0, {"slow"}) and not contradicts(160.0, {"fast"}) and not contradicts(160.0, set())


@given(st.floats(20, 400), st.sampled_from(["{:.0f}bpm", "{:.0f} BPM", "bpm: {:.0f}", "BPM={:.0f}", "tempo {:.0f}"]))
def test_every_form_is_found_in_the_midst_of_words(bpm: float, form: str) -> None:
    assert find_tempi(f"dark techno, {form.format(bpm)}, loud") == [float(f"{bpm:.0f}")]


@given(st.text(max_size=80))
def test_any_text_is_read_without_complaint(text: str) -> None:
    assert all(number >= 0 for number in find_tempi(text))
    bpm = read_bpm(text)
    assert bpm is None or 20 <= bpm <= 400
