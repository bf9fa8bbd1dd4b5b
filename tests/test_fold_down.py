"""What a mono or stereo codec is given of any file: the music, as loud as it is, and the truth about it."""

import numpy as np
import pytest
import soundfile
from test_decode import encode

from data_prep.clips import read_clips
from data_prep.decode import stream
from data_prep.features import measure_features
from data_prep.measure import TrackScan, measure
from data_prep.segment import Segment

RATE_HZ = 32_000
SEC = 3


def music(seed: int = 0) -> np.ndarray:
    """Decaying notes over noise: -20 dB or so."""
    rng, t = np.random.default_rng(seed), np.arange(RATE_HZ // 4) / RATE_HZ
    notes = 110 * 2 ** (rng.integers(0, 24, 4 * SEC) / 12)
    tune = np.concatenate([np.sin(2 * np.pi * hz * t) * np.exp(-4 * t) for hz in notes])
    return (0.3 * tune + rng.normal(0, 0.01, len(tune))).astype(np.float32)


def heard(path, channels: int) -> tuple[TrackScan, np.ndarray]:
    """The scan and the audio that a codec of so many channels gets."""
    scan = measure(path)
    audio = stream(path, sample_rate_hz=RATE_HZ, channels=channels, fold=scan.fold)
    return scan.for_channels(channels), np.concatenate(list(audio), axis=1)


def write(path, *sides: np.ndarray):
    soundfile.write(path, np.stack(sides, 1), RATE_HZ, subtype="FLOAT")
    return path


def level_db(audio: np.ndarray) -> float:
    return float(10 * np.log10(np.square(audio, dtype=np.float64).mean() + 1e-20))


A, B = music(0), music(1)
CANCELLING = {
    "inverted": (A, -A, "left"),
    "inverted, right louder": (0.5 * A, -A, "right"),
    "nearly inverted": (A, -0.9 * A + 0.05 * B, "left"),
    "inverted for a third": (A, np.where(np.arange(len(A)) < len(A) // 3, -A, A), "left"),
}
KEEPING = {"mono": (A, A), "apart": (A, B), "wide": (A + 0.5 * B, A - 0.5 * B), "panned": (A, 0.3 * A)}


@pytest.mark.parametrize("kind", CANCELLING)
def test_sides_that_cancel_are_told_and_the_music_kept(tmp_path, kind):
    left, right, used = CANCELLING[kind]
    path = write(tmp_path / "a.wav", left, right.astype(np.float32))
    scan, audio = heard(path, 1)
    assert f"cancels_in_mono:{used}_used" in scan.flags
    np.testing.assert_allclose(audio[0], left if used == "left" else right, atol=1e-6)
    assert abs(level_db(audio) - max(level_db(left), level_db(right))) < 0.1
    assert np.median(scan.levels_db) == pytest.approx(level_db(audio), abs=6)
    stereo, both = heard(path, 2)
    assert not stereo.flags and both.shape == (2, len(A))


@pytest.mark.parametrize("kind", KEEPING)
def test_other_stereo_is_the_mean_and_says_nothing(tmp_path, kind):
    left, right = KEEPING[kind]
    scan, audio = heard(write(tmp_path / "a.wav", left, right), 1)
    assert not scan.flags and scan.fold.is_plain
    np.testing.assert_allclose(audio[0], (left + right) / 2, atol=1e-6)


def test_silence_is_judged_on_what_the_codec_gets(tmp_path):
    """Both sides sound, their mean does not: the levels are those of the fold in use, window by window."""
    for name, sides in (("a.wav", (A, B)), ("b.wav", (A, -A)), ("c.wav", (A, 0 * A))):
        scan, audio = heard(write(tmp_path / name, *sides), 1)
        windows = audio[0, : len(audio[0]) // 1600 * 1600].reshape(-1, 1600)
        np.testing.assert_allclose(scan.levels_db, [level_db(w) for w in windows], atol=0.11)


def test_one_sided_music_is_not_halved(tmp_path):
    for sides in ((A, 0 * A), (0 * A, A)):
        _, audio = heard(write(tmp_path / "a.wav", *sides), 1)
        np.testing.assert_allclose(audio[0], A, atol=1e-6)


def surround(path, **channels: np.ndarray):
    names = ("FL", "FR", "FC", "LFE", "BL", "BR")
    return encode(path, np.stack([channels.get(name, 0 * A) for name in names]), "pcm_f32le", RATE_HZ)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_centre_alone_is_as_loud_as_mono(tmp_path, channels):
    _, audio = heard(surround(tmp_path / "a.wav", FC=A), channels)
    np.testing.assert_allclose(audio, np.stack([A] * channels), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_stereo_in_surround_is_as_loud_as_stereo(tmp_path, channels):
    _, folded = heard(surround(tmp_path / "a.wav", FL=A, FR=B), channels)
    _, stereo = heard(write(tmp_path / "b.wav", A, B), channels)
    np.testing.assert_allclose(folded, stereo, atol=1e-5)


@pytest.mark.parametrize("loud", [1.0, 3.3])
def test_a_full_mix_follows_the_standard_and_does_not_clip(tmp_path, loud):
    """ITU-R BS.775: centre and surrounds at -3 dB, LFE left out; scaled only as far as it would clip."""
    parts = {name: loud * music(seed) for seed, name in enumerate(("FL", "FR", "FC", "LFE", "BL", "BR"))}
    scan, audio = heard(surround(tmp_path / "a.wav", **parts), 2)
    wanted = np.stack([parts[a] + 0.5**0.5 * (parts["FC"] + parts[b]) for a, b in (("FL", "BL"), ("FR", "BR"))])
    wanted = wanted / max(1.0, np.abs(wanted).max())
    np.testing.assert_allclose(audio, wanted, atol=1e-5)
    assert np.abs(audio).max() <= 1 + 1e-5
    assert max(scan.levels_db) == pytest.approx(20 * np.log10(np.abs(wanted).max()), abs=15)


def test_surround_that_cancels_is_told(tmp_path):
    scan, audio = heard(surround(tmp_path / "a.wav", FL=A, FR=-A, FC=0.01 * B), 1)
    assert "cancels_in_mono:left_used" in scan.flags and abs(level_db(audio) - level_db(A)) < 0.5


def test_clips_are_read_with_the_fold(tmp_path):
    path = write(tmp_path / "a.wav", A, -A)
    scan = measure(path)
    (clip,) = read_clips(path, [Segment(1.0, 1.0)], sample_rate_hz=RATE_HZ, channels=1, fold=scan.fold)
    np.testing.assert_allclose(clip[0], A[RATE_HZ : 2 * RATE_HZ], atol=1e-6)
    assert measure_features(clip, RATE_HZ).loudness_lufs is not None


def test_the_scan_survives_json(tmp_path):
    import json
    from dataclasses import asdict

    from data_prep.measure import scan_from_json

    scan = measure(write(tmp_path / "a.wav", A, -A))
    assert scan_from_json(json.loads(json.dumps(asdict(scan)))) == scan
