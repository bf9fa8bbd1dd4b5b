"""Measures of codecs against closed forms and other libraries."""

import math
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from data_prep.codec_measures import visqol
from data_prep.codec_measures.code_use import CodeUse
from data_prep.codec_measures.opus import OPUS_RATE_HZ, opus_available, through_opus
from data_prep.codec_measures.si_sdr import si_sdr_db
from data_prep.codec_measures.spectral import MEASURE_RATE_HZ, MEL_BANDS, WINDOWS, mel_distance, stft_distance


def noise(seconds: float = 1.0, channels: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.3 * torch.randn(channels, round(seconds * MEASURE_RATE_HZ), generator=generator)


def tone(hz: float = 1000.0, seconds: float = 1.0) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * hz * torch.arange(round(seconds * MEASURE_RATE_HZ)) / MEASURE_RATE_HZ)[None]


@pytest.mark.parametrize("distance", [mel_distance, stft_distance])
def test_equal_recordings_have_no_distance(distance) -> None:
    assert distance(noise(), noise()) == 0.0 and distance(noise(), noise(seed=1)) > 0.1


def test_a_gain_moves_the_levels_by_its_logarithm() -> None:
    """log10 of a squared magnitude moves by 2 log10 g in every cell above the floor; magnitudes by 1 - g."""
    audio, gain = noise(), 0.5
    magnitudes = sum(
        torch.stft(audio, w, w // 4, window=torch.hann_window(w), return_complex=True).abs().mean() for w in WINDOWS
    )
    expected = len(WINDOWS) * 2 * math.log10(1 / gain) + (1 - gain) * float(magnitudes)
    assert stft_distance(gain * audio, audio) == pytest.approx(expected, rel=1e-3)


def test_what_lies_below_the_floor_does_not_count() -> None:
    silence = torch.zeros(1, MEASURE_RATE_HZ)
    assert mel_distance(silence, silence + 1e-9) < 1e-6 and stft_distance(silence, silence + 1e-9) < 1e-6


def test_mel_distance_is_that_of_librosa_s_mel_spectrograms() -> None:
    librosa = pytest.importorskip("librosa")
    ours, theirs = tone() + 0.1 * noise(), noise()
    expected = 0.0
    for window, bands in zip(WINDOWS, MEL_BANDS, strict=True):
        made, wanted = (
            librosa.feature.melspectrogram(
                y=audio[0].numpy(), sr=MEASURE_RATE_HZ, n_fft=window, hop_length=window // 4, n_mels=bands,
                power=1.0, pad_mode="reflect",
            )
            for audio in (ours, theirs)
        )  # fmt: skip
        levels = [np.log10(np.maximum(spectrum, 1e-5) ** 2) for spectrum in (made, wanted)]
        expected += np.abs(levels[0] - levels[1]).mean() + np.abs(made - wanted).mean()
    assert mel_distance(ours, theirs) == pytest.approx(expected, rel=1e-4)


def test_both_channels_count_and_short_clips_can_be_measured() -> None:
    left, right = noise(seed=1), noise(seed=2)
    both = stft_distance(torch.cat([left, right]), torch.cat([right, right]))
    assert both == pytest.approx(stft_distance(left, right) / 2, rel=1e-5)
    assert mel_distance(noise()[:, :100], noise()[:, :100]) == 0.0


@pytest.mark.parametrize("ratio_db", [-5.0, 0.0, 12.0])
@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_si_sdr_is_the_ratio_of_orthogonal_parts_whatever_the_gain(ratio_db: float, gain: float) -> None:
    wanted, other = tone(1000.0), tone(1500.0)
    made = gain * (wanted + other * 10 ** (-ratio_db / 20)) + 0.2
    assert si_sdr_db(made, wanted) == pytest.approx(ratio_db, abs=0.01)


def test_si_sdr_of_equal_and_of_silent_recordings_is_finite() -> None:
    assert si_sdr_db(tone(), tone()) > 80 and math.isfinite(si_sdr_db(torch.zeros(1, 100), tone()[:, :100]))


def test_bitrate_efficiency_is_entropy_over_bits() -> None:
    use = CodeUse(2, 8)
    use.add(np.stack([np.arange(8), np.zeros(8, np.int64)]).astype(np.int16))
    np.testing.assert_allclose(use.entropy_bits(), [3.0, 0.0])
    assert use.bitrate_efficiency() == 0.5 and use.bitrate_efficiency(1) == 1.0
    assert use.codes_in_use() == 9 / 16 and use.n_frames == 8
    assert use.shares_in_use() == [1.0, 1 / 8] and use.perplexity() == pytest.approx([8.0, 1.0])
    use.add(np.array([[0, 0, 0, 0], [1, 1, 1, 1]], np.int16))
    share = np.array([5, 1, 1, 1, 1, 1, 1, 1]) / 12
    np.testing.assert_allclose(use.entropy_bits()[0], -(share * np.log2(share)).sum())


@pytest.mark.parametrize("channels", [1, 2])
def test_opus_keeps_a_tone_in_its_place_at_the_rate_that_was_asked_for(channels: int) -> None:
    if not opus_available():
        pytest.fail("this FFmpeg has no libopus")
    time = np.arange(2 * OPUS_RATE_HZ) / OPUS_RATE_HZ
    audio = np.stack([0.4 * np.sin(2 * np.pi * hz * time) for hz in (440.0, 660.0)][:channels]).astype(np.float32)
    decoded, bitrate_bps = through_opus(audio, 24_000 * channels)
    assert decoded.shape == audio.shape and bitrate_bps == pytest.approx(24_000 * channels, rel=0.05)
    middle = slice(OPUS_RATE_HZ // 2, -OPUS_RATE_HZ // 2)
    for made, wanted in zip(decoded[:, middle], audio[:, middle], strict=True):
        lags = np.correlate(np.pad(made, 400), wanted, "valid")
        assert abs(int(lags.argmax()) - 400) <= 2
    less, fewer_bps = through_opus(audio, 8_000)
    assert fewer_bps < bitrate_bps
    wanted = torch.from_numpy(audio)
    assert si_sdr_db(torch.from_numpy(less), wanted) < si_sdr_db(torch.from_numpy(decoded), wanted)


def test_visqol_is_asked_at_48_khz_reference_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is an extra: here a stand-in notes how it is called; `-m network` asks the real one."""
    asked = {}

    class Api:
        def create(self, mode: str) -> None:
            asked["mode"] = mode

        def measure_from_arrays(self, reference: np.ndarray, degraded: np.ndarray, rate_hz: int) -> object:
            asked.update(reference=reference, degraded=degraded, rate_hz=rate_hz)
            return type("Result", (), {"moslqo": 4.2})

    module = ModuleType("visqol")
    module.VisqolApi = Api  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "visqol", module)
    visqol._api.cache_clear()
    made, wanted = np.zeros((2, 10), np.float32), np.ones((2, 10), np.float32)
    assert visqol.visqol_mos(made, wanted) == 4.2
    visqol._api.cache_clear()
    assert asked["mode"] == "audio" and asked["rate_hz"] == 48_000 and asked["reference"].ndim == 1
    assert asked["reference"][0] == 1.0 and asked["degraded"][0] == 0.0


@pytest.mark.network
def test_visqol_hears_what_a_low_pass_takes_away() -> None:
    pytest.importorskip("visqol")
    from scipy.signal import butter, sosfilt

    audio = noise(4.0).numpy()
    dull = np.asarray(sosfilt(butter(8, 3000, fs=48_000, output="sos"), audio), np.float32)
    assert visqol.visqol_mos(audio, audio) > 4.5 > visqol.visqol_mos(dull, audio) + 0.5
