"""One key for a track; a clip differs from it on evidence only, and drums have none."""

import numpy as np
import pytest

from data_prep.keys import KEYS, best_key, clip_key, mean_chroma

MAJOR = np.array([6, 2, 3.5, 2, 4.5, 4, 2.5, 5, 2.5, 3.5, 2, 3])
MINOR = np.array([6, 2.5, 3.5, 5.5, 2.5, 3.5, 2.5, 5, 4, 2.5, 3.5, 3])


def chroma(key: str, noise: float = 0.0, seed: int = 0) -> list[float]:
    index = KEYS.index(key)
    values = np.roll(MAJOR if index < 12 else MINOR, index % 12)
    return (values + np.random.default_rng(seed).normal(0, noise, 12)).clip(0.01).tolist()


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_found(key):
    assert best_key(chroma(key))[0] == key


def test_a_clip_in_doubt_has_its_tracks_key():
    track = best_key(chroma("A minor"))
    for seed in range(20):
        for near in ("A minor", "C major", "E minor"):  # relatives: the notes hardly tell them apart
            assert clip_key(chroma(near, 0.2, seed), track)[0] in ("A minor", near, None)


def test_a_clip_with_evidence_has_its_own_key():
    track = best_key(chroma("C major"))
    assert clip_key(chroma("F sharp major"), track)[0] == "F sharp major"
    assert clip_key(chroma("E flat minor"), track)[0] == "E flat minor"


@pytest.mark.parametrize("values", [[0.0] * 12, [1.0] * 12, [1.0] + [0.0] * 10 + [1.0]])
def test_what_fits_no_key_has_none(values):
    assert best_key(values)[0] is None or best_key(values)[1] is not None
    if len(set(values)) == 1:
        assert best_key(values) == (None, None) and clip_key(values, ("C major", 0.2)) == (None, None)


def test_no_notes_no_key():
    assert clip_key(None, ("C major", 0.2)) == (None, None) and mean_chroma([], []) is None


def test_long_clips_count_for_more():
    mean = mean_chroma([chroma("C major"), chroma("F sharp major")], [30.0, 5.0])
    assert mean is not None and best_key(mean)[0] == "C major"
