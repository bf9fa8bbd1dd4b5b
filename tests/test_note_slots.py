"""Notes as slots per frame."""

import pytest

from configs.errors import UserError
from data_prep.note_slots import Note, note_slots


def column(notes, pitch=60, n_frames=6):
    return note_slots(notes, n_frames, 25.0)[:, pitch].tolist()


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0.04, 0.16, [0, 2, 1, 1, 0, 0]),
        (0.05, 0.05, [0, 2, 0, 0, 0, 0]),
        (0.05, 0.09, [0, 2, 1, 0, 0, 0]),
        (-0.1, 0.07, [1, 1, 0, 0, 0, 0]),
        (0.2, 9.0, [0, 0, 0, 0, 0, 2]),
        (-2.0, -1.0, [0] * 6),
        (5.0, 6.0, [0] * 6),
    ],
)
def test_when_a_note_is_struck_and_held(start, end, expected):
    assert column([Note(60, start, end)]) == expected


def test_struck_again():
    assert column([Note(60, 0.0, 0.2), Note(60, 0.08, 0.16)]) == [2, 1, 2, 1, 1, 0]


def test_pitches_are_apart():
    slots = note_slots([Note(0, 0.0, 0.04), Note(127, 0.04, 0.08)], 3, 25.0)
    assert slots.nonzero()[0].tolist() == [0, 1] and slots.nonzero()[1].tolist() == [0, 127]


@pytest.mark.parametrize("note", [Note(128, 0.0, 1.0), Note(-1, 0.0, 1.0), Note(60, 1.0, 0.5)])
def test_what_is_no_note_is_refused(note):
    with pytest.raises(UserError, match="no note"):
        note_slots([note], 3, 25.0)
