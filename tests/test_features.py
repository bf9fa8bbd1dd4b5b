import librosa
import numpy as np
import pytest

from data_prep.features import Features, harmonic_and_percussive, measure_features
from data_prep.loudness import _high_pass, _shelf, loudness_lufs

RATE_HZ = 32_000
KEYS = {
    "C major": ("C F G C", ""),
    "A minor": ("A D E A", "m"),
    "E flat major": ("E- A- B- E-", ""),
    "F sharp minor": ("F+ B C+ F+", "m"),
}
PITCH = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


def clicks(bpm: float, sec: float = 12.0) -> np.ndarray:
    audio = np.random.default_rng(0).normal(0, 1e-4, round(sec * RATE_HZ))
    burst = np.random.default_rng(1).normal(0, 0.5, 600) * np.exp(-np.arange(600) / 100)
    for beat in np.arange(0, sec - 0.1, 60 / bpm):
        audio[round(beat * RATE_HZ) :][:600] += burst
    return audio.astype(np.float32)


def chords(roots: str, mode: str, detune: float = 0.0) -> np.ndarray:
    """Triads of four harmonics each, a second per chord; the fifth degree of a minor key is major, as in practice."""
    t = np.arange(RATE_HZ) / RATE_HZ
    pieces = []
    for index, root in enumerate(roots.split()):
        note = PITCH[root[0]] + {"+": 1, "-": -1}.get(root[1:], 0)
        third = 3 if mode == "m" and index != 2 else 4
        hz = [440 * 2 ** ((note - 9 + step + detune) / 12) for step in (-12, 0, third, 7)]
        pieces.append(sum(np.sin(2 * np.pi * f * h * t) / h**1.5 for f in hz for h in (1, 2, 3, 4)) * np.exp(-t))
    return np.tile(np.concatenate(pieces) * 0.05, 2).astype(np.float32)


def test_clicks_are_percussive() -> None:
    found = measure_features(clicks(120), RATE_HZ)
    assert found.percussive_share is not None and found.percussive_share > 0.8


@pytest.mark.parametrize("detune", [0.0, 0.3])
@pytest.mark.parametrize("key", KEYS)
def test_key_of_chords(key: str, detune: float) -> None:
    """Thirty cents off concert pitch, too: old records are."""
    found = measure_features(chords(*KEYS[key], detune), RATE_HZ)
    assert found.key == key
    assert found.key_confidence is not None and found.key_confidence > 0.05
    assert found.percussive_share is not None and found.percussive_share < 0.15


def test_loudness_of_the_standard() -> None:
    """ITU-R BS.1770-4, annex 1: a 997 Hz sine at full scale in one channel reads -3.01 LKFS."""
    sine = np.sin(2 * np.pi * 997 * np.arange(5 * RATE_HZ) / RATE_HZ).astype(np.float32)
    assert measure_features(sine, RATE_HZ).loudness_lufs == pytest.approx(-3.01, abs=0.1)
    assert measure_features(sine * 0.1, RATE_HZ).loudness_lufs == pytest.approx(-23.01, abs=0.1)
    assert measure_features(np.stack([sine, sine]), RATE_HZ).loudness_lufs == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("rate_hz", [22_050, 32_000, 44_100, 48_000, 96_000])
def test_k_weighting_at_every_rate(rate_hz: int) -> None:
    sine = np.sin(2 * np.pi * 997 * np.arange(3 * rate_hz) / rate_hz)[None].astype(np.float32)
    assert loudness_lufs(sine, rate_hz) == pytest.approx(-3.01, abs=0.03)


def test_filters_are_those_of_the_standard() -> None:
    """ITU-R BS.1770-4, tables 1 and 2: coefficients at 48 kHz."""
    shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285], [1.0, -1.69065929318241, 0.73248077421585]
    high_pass = [1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621]
    np.testing.assert_allclose(_shelf(48_000), shelf, atol=1e-12)
    np.testing.assert_allclose(_high_pass(48_000), high_pass, atol=1e-12)


def test_gates() -> None:
    """After EBU Tech 3341, cases 3 and 4: quiet parts do not pull the result down."""
    sine = np.sin(2 * np.pi * 1000 * np.arange(48_000 * 10) / 48_000)
    levels = np.concatenate([10 ** (db / 20) * sine for db in (-72, -36, -23, -23, -23, -36, -72)])
    both = np.stack([levels, levels]).astype(np.float32)
    assert loudness_lufs(both, 48_000) == pytest.approx(-23.0, abs=0.1)
    assert loudness_lufs(both * 1e-4, 48_000) is None


@pytest.mark.parametrize("hz", [300.0, 3000.0])
def test_brightness_of_a_tone(hz: float) -> None:
    sine = np.sin(2 * np.pi * hz * np.arange(3 * RATE_HZ) / RATE_HZ).astype(np.float32)
    assert measure_features(sine, RATE_HZ).brightness_hz == pytest.approx(hz, rel=0.02)


@pytest.mark.parametrize("samples", [0, 1, 100, 5000, 12_000, 30_000, 70_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_short_clips_say_what_they_can(samples: int, channels: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (channels, samples)).astype(np.float32)
    found = measure_features(noise, RATE_HZ)
    assert all(value is None or isinstance(value, str) or np.isfinite(value).all() for value in vars(found).values())
    assert found.tempo_bpm is None, "a clip alone has no tempo: it has its track's"
    assert (found.loudness_lufs is None) == (samples < 0.4 * RATE_HZ)


@pytest.mark.parametrize("audio", [np.zeros(200_000), np.full(200_000, 1e-5), np.zeros((2, 0))])
def test_silence_says_nothing(audio: np.ndarray) -> None:
    assert measure_features(audio.astype(np.float32), RATE_HZ) == Features()


def test_odd_signals_give_numbers() -> None:
    wave = clicks(120)
    steady = np.sin(np.arange(8 * RATE_HZ) * 0.1)
    for audio in (np.stack([wave, -wave]), np.full(100_000, 0.5), np.ones((2, 100_000)), steady):
        found = measure_features(audio.astype(np.float32), RATE_HZ)
        assert all(
            v is None or isinstance(v, str) or (type(v) in (float, tuple) and np.isfinite(v).all())
            for v in vars(found).values()
        )


@pytest.mark.parametrize("n_frames", [3, 40, 200])
def test_harmonic_and_percussive_are_librosas(n_frames: int) -> None:
    magnitude = np.abs(np.random.default_rng(0).standard_normal((300, n_frames))).astype(np.float32)
    magnitude[:5] = 0.0
    ours, theirs = harmonic_and_percussive(magnitude), librosa.decompose.hpss(magnitude)
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])
