import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from configs.errors import UserError
from data_prep.decode import probe
from data_prep.write_audio import FloatWavWriter, write_audio

RATE_HZ = 32_000


@pytest.mark.parametrize("name", ["a.wav", "deep/er/A.FLAC"])
def test_written_audio_reads_back_with_its_tags(tmp_path: Path, name: str) -> None:
    audio = np.random.default_rng(0).uniform(-1, 1, (2, 5000)).astype(np.float32)
    audio[0, 0] = 3.0
    write_audio(tmp_path / name, audio, RATE_HZ, {"title": "émile", "comment": "seed 7"})
    heard, rate = soundfile.read(tmp_path / name, dtype="float32")
    np.testing.assert_allclose(heard.T, np.clip(audio, -1, 1), atol=2**-22)
    tags = probe(tmp_path / name).tags
    assert (rate, tags["title"], tags["comment"]) == (RATE_HZ, "émile", "seed 7")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    audio = np.zeros((1, 10), np.float32)
    with pytest.raises(UserError, match=r"cannot write \.mp3"):
        write_audio(tmp_path / "a.mp3", audio, RATE_HZ)
    with pytest.raises(ValueError, match="no tag"):
        write_audio(tmp_path / "a.wav", audio, RATE_HZ, {"mood": "blue"})
    with pytest.raises(ValueError, match="not numbers"):
        write_audio(tmp_path / "a.wav", audio * np.nan, RATE_HZ)
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), FloatWavWriter(path, RATE_HZ, 1, 10) as file:
        file.write(np.zeros((1, 10), np.float32))
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 100 kB, which the system says in the same way as that the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_full_disk_is_told_in_plain_words(tmp_path: Path, full_disk: None, name: str) -> None:
    audio = np.random.default_rng(0).uniform(-1, 1, (2, 100_000)).astype(np.float32)
    with pytest.raises(UserError, match=r"(?s)could not be written.*Free some disk space"):
        write_audio(tmp_path / name, audio, RATE_HZ)
    assert list(tmp_path.iterdir()) == []


def test_stems_on_a_full_disk_are_told_in_plain_words(tmp_path: Path, full_disk: None) -> None:
    block = np.zeros((2, 10_000), np.float32)
    with (
        pytest.raises(UserError, match="Free some disk space"),
        FloatWavWriter(tmp_path / "a.wav", RATE_HZ, 2, 100_000) as file,
    ):
        for _ in range(10):
            file.write(block)
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="Choose another folder"),
        FloatWavWriter(tmp_path / "file" / "a.wav", RATE_HZ, 2, 10),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_the_reader_cannot_read_is_no_full_disk(tmp_path: Path) -> None:
    """A stem is written while its song is read: what fails there is not said of the disk."""
    with pytest.raises(FileNotFoundError), FloatWavWriter(tmp_path / "a.wav", RATE_HZ, 2, 10):
        (tmp_path / "song").read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_past_four_gigabytes_the_format_changes(tmp_path: Path) -> None:
    """The length is only announced: RF64 is chosen by it, and FFmpeg reads it."""
    with FloatWavWriter(tmp_path / "a.wav", RATE_HZ, 2, 600_000_000) as file:
        file.write(np.full((2, 1000), 0.25, np.float32))
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RF64"
    assert probe(tmp_path / "a.wav").channels == 2
