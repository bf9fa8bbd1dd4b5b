"""Embeddings: one vector per clip, of any rate and shape; laws of what lies near what; bad input in a sentence."""

import numpy as np
import pytest
import soxr

from configs.errors import UserError
from data_prep.listeners.embedding import embed, load_embedder


def tones(seed: int, sec: float = 4.0, rate_hz: int = 16_000) -> np.ndarray:
    """A little melody of decaying tones; the seed chooses the notes, not the sound."""
    draw = np.random.default_rng(seed)
    t = np.arange(round(sec * rate_hz)) / rate_hz
    audio = np.zeros_like(t)
    for start in np.arange(0, sec, 0.25):
        hz = 220 * 2 ** (draw.integers(0, 13) / 12)
        age = np.clip(t - start, 0, None)
        audio += (t >= start) * np.exp(-6 * age) * sum(np.sin(2 * np.pi * k * hz * age) / k for k in (1, 2, 3))
    return (0.2 * audio).astype(np.float32)


def noise(seed: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(64_000)).astype(np.float32)


def test_a_row_per_clip_and_always_the_same() -> None:
    clips = [tones(0), tones(1, sec=5.0), noise(0)[:1000]]
    found = embed(clips)
    assert found.shape == (3, load_embedder("musicnn").width) and found.dtype == np.float32
    np.testing.assert_array_equal(found, embed(clips))
    np.testing.assert_array_equal(found[1:2], embed(clips[1:2]), "others beside it change nothing")


def test_music_that_sounds_alike_lies_close() -> None:
    a, b, c, d = embed([tones(0), tones(1), noise(0), noise(1)])
    assert np.linalg.norm(a - b) < 0.5 * np.linalg.norm(a - c)
    assert np.linalg.norm(c - d) < 0.5 * np.linalg.norm(a - c)


def test_rate_and_channels_hardly_matter() -> None:
    clip, other = tones(0), noise(0)
    base, far = embed([clip, other])
    stereo = np.stack([soxr.resample(clip, 16_000, 44_100)] * 2)
    again = embed([stereo], 44_100)[0]
    assert np.linalg.norm(base - again) < 0.05 * np.linalg.norm(base - far)


def test_nothing_gives_no_rows() -> None:
    assert embed([]).shape == (0, load_embedder("musicnn").width)


@pytest.mark.parametrize(
    ("audio", "said"), [(np.zeros(0, np.float32), "is empty"), (np.full(100, np.nan, np.float32), "no numbers")]
)
def test_bad_audio_is_named(audio: np.ndarray, said: str) -> None:
    with pytest.raises(UserError, match=said):
        embed([tones(0), audio])


def test_an_unknown_embedder_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no embedder 'musicn'") as caught:
        embed([tones(0)], embedder="musicn")
    assert "musicnn" in caught.value.fix
