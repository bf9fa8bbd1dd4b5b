"""What C libraries write past Python is dropped where we understand it, and nothing else is."""

import os
from pathlib import Path

import numpy as np
import pytest

from data_prep.audio_file import AudioError
from data_prep.c_remarks import known_remarks_dropped
from data_prep.measure import measure


def test_a_damaged_mp3_is_one_sentence_of_ours(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """libmpg123 writes four lines of its own about such a file."""
    noise = np.random.default_rng(1).integers(0, 256, 50_000, dtype=np.uint8).tobytes()
    (tmp_path / "a.mp3").write_bytes(b"ID3\x04\x00\x00\x00\x00\x7f\x7f" + noise)
    with pytest.raises(AudioError):
        measure(tmp_path / "a.mp3")
    assert capfd.readouterr().err == ""


def test_other_lines_come_through_in_their_order(capfd: pytest.CaptureFixture[str]) -> None:
    with known_remarks_dropped():
        os.write(2, b"[src/libmpg123/parse.c:skip_junk():1260] error: Giving up.\nout of cheese\n")
        os.write(2, b"Note: Illegal Audio-MPEG-Header 0x00000000 at offset 50006.\nNote: the disk is on fire")
    os.write(2, b"\nafterwards\n")
    assert capfd.readouterr().err == "out of cheese\nNote: the disk is on fire\nafterwards\n"


def test_an_error_inside_does_not_keep_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="x"), known_remarks_dropped():
        raise ValueError("x")
    os.write(2, b"here\n")
    assert capfd.readouterr().err == "here\n"


def test_without_room_for_a_file_nothing_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("data_prep.c_remarks.tempfile.TemporaryFile", full)
    before = os.dup(2)
    os.close(before)
    with known_remarks_dropped():
        pass
    after = os.dup(2)
    os.close(after)
    assert after == before


def test_without_a_terminal_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_: int) -> int:
        raise OSError("bad file descriptor")

    monkeypatch.setattr(os, "dup", closed)
    with known_remarks_dropped():
        pass
