"""Measuring songs: what is wrong with a file is kept, what went wrong with the machine is not."""

from pathlib import Path

import av
import av.error
import numpy as np
import pytest

from data_prep import tracks
from data_prep.cache import Cache
from data_prep.pool import run_here
from data_prep.scan import Rejection, scan
from data_prep.tracks import Track, measure_tracks
from data_prep.write_audio import write_audio

RATE_HZ = 16_000


@pytest.fixture
def songs(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, RATE_HZ)).astype(np.float32)
    write_audio(tmp_path / "songs" / "a.wav", noise, RATE_HZ)
    (tmp_path / "songs" / "b.wav").write_bytes(b"nonsense")
    return tmp_path / "songs"


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Where the tests make the machine fail."""
    monkeypatch.setattr(tracks, "run_each", lambda function, inputs, workers: run_here(function, inputs))


def measured(songs: Path) -> tuple[list[Track], list[Rejection]]:
    cache = Cache(songs.parent / "cache")
    return measure_tracks(scan(songs).songs, cache, max_track_sec=60.0, workers=1)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (av.error.OSError(5, "Input/output error"), "cannot be read: Input/output error"),
        (av.error.OSError(24, "Too many open files"), "cannot be read: Too many open files"),
        (FileNotFoundError(2, "No such file or directory"), "cannot be read: No such file or directory"),
        (av.error.MemoryError(12, "Cannot allocate memory"), "Cannot allocate memory"),
    ],
)
def test_a_file_that_cannot_be_read_now_is_measured_next_time(songs, monkeypatch, failure, said):
    def fail(*args, **kwargs):
        raise failure

    with monkeypatch.context() as broken:
        broken.setattr("data_prep.ffmpeg.av.open", fail)
        found, rejected = measured(songs)
        assert not found and all(said in r.why for r in rejected) and len(rejected) == 2
    found, rejected = measured(songs)
    assert [track.song.relative for track in found] == ["a.wav"]
    assert [(r.where, r.why.partition(",")[0]) for r in rejected] == [("b.wav", "not audio")]


def test_a_verdict_on_the_content_is_kept(songs, monkeypatch):
    _, rejected = measured(songs)
    monkeypatch.setattr("data_prep.tracks.measure", print)
    assert measured(songs)[1] == rejected
