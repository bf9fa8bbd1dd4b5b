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


def test_past_four_gigabytes_the_format_changes(tmp_path: Path) -> None:
    """The length is only announced: RF64 is chosen by it, and FFmpeg reads it."""
    with FloatWavWriter(tmp_path / "a.wav", RATE_HZ, 2, 600_000_000) as file:
        file.write(np.full((2, 1000), 0.25, np.float32))
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RF64"
    assert probe(tmp_path / "a.wav").channels == 2
