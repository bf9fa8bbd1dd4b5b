"""Chroma against transformers' extractor on the same audio, and what counts as a melody."""

import numpy as np
import pytest
import torch
from torch import Tensor

from data_prep.chroma import agreement, chroma, has_melody
from data_prep.chroma_shape import ChromaShape
from data_prep.condition_sources.registry import source_of
from data_prep.lm_spec import ConditionKind
from data_prep.tokens import VALUES, TokenReader, write_values

SHAPE = ChromaShape()


def line(seed: int, seconds: float = 4.0, rate_hz: int = SHAPE.sample_rate_hz) -> Tensor:
    """Decaying notes of half a second."""
    notes = np.random.default_rng(seed).integers(55, 80, int(2 * seconds))
    at = torch.arange(rate_hz // 2) / rate_hz
    hz = [440 * 2 ** ((int(note) - 69) / 12) for note in notes]
    return torch.cat([torch.sin(2 * np.pi * f * at) * torch.exp(-2 * at) for f in hz])


@pytest.mark.parametrize("shape", [SHAPE, ChromaShape(16_000, 4096, 1024, 12)])
@pytest.mark.parametrize("samples", [100_000, 3000, 131_072])
def test_chroma_is_the_reference_extractors(shape: ChromaShape, samples: int) -> None:
    pytest.importorskip("torchaudio")
    from transformers import MusicgenMelodyFeatureExtractor

    extractor = MusicgenMelodyFeatureExtractor(
        sampling_rate=shape.sample_rate_hz, hop_length=shape.hop_samples, n_fft=shape.n_fft, chunk_length=30
    )
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(0))
    audio = line(1, 8.0)[:samples] + 0.05 * noise
    audio[samples // 2 : samples // 2 + samples // 8] = 0
    expected = extractor(audio.numpy(), sampling_rate=shape.sample_rate_hz, return_tensors="pt").input_features[0]
    found = chroma(audio, shape)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert samples < 10_000 or len(found[:, :].unique(dim=0)) > 2


def test_silence_and_noise_have_no_melody_and_a_line_has() -> None:
    noise = torch.randn(SHAPE.sample_rate_hz * 4, generator=torch.Generator().manual_seed(0))
    assert not has_melody(torch.zeros(40_000), SHAPE)
    assert not has_melody(torch.zeros(0), SHAPE)
    assert not has_melody(1e-4 * line(0), SHAPE)
    assert not has_melody(0.3 * noise, SHAPE)
    assert has_melody(line(0), SHAPE)
    assert has_melody(line(0) + 0.05 * noise, SHAPE)


def test_agreement_counts_equal_frames() -> None:
    one = chroma(line(0), SHAPE)
    assert agreement(one, one) == 1.0
    assert agreement(one, chroma(line(3), SHAPE)) < 0.5
    assert agreement(one, one[:0]) == 0.0


def test_the_melody_source_gives_null_for_what_has_none() -> None:
    source = source_of("melody")
    assert source is not None
    kind = ConditionKind("melody", 12, per="frame", enters="prefix", rate_hz=SHAPE.rate_hz, made_with=SHAPE)
    assert source.sample_rate_hz(kind) == 32_000
    assert source.values(np.zeros(64_000, np.float32), kind) is None
    found = source.values(line(0).numpy(), kind)
    assert found is not None and found.shape == (1 + 128_000 // 4096, 12)


@pytest.mark.parametrize(
    ("asked", "version", "model", "expected"),
    [
        ("rest", "mix", "htdemucs", "other+vocals"),
        ("rest", "mix", "htdemucs_6s", "guitar+other+piano+vocals"),
        ("rest", "instrumental", "htdemucs", "other"),
        ("rest", "bass+drums", "htdemucs", None),
        ("rest", "bass+vocals", "htdemucs", "vocals"),
        ("mix", "vocals", "htdemucs", "vocals"),
        ("vocals", "instrumental", "htdemucs", "vocals"),
    ],
)
def test_which_stems_a_melody_is_read_from(asked: str, version: str, model: str, expected: str | None) -> None:
    source = source_of("melody")
    assert source is not None
    found = source.selection(asked, version, model)
    assert (found and found.name) == expected


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_values_lie_on_disk_as_tokens_do(tmp_path, dtype) -> None:
    values = {"a": np.arange(12).reshape(4, 3).astype(dtype), "b": np.ones((1, 3), dtype)}
    write_values(tmp_path / "v", values, np.dtype(dtype), "0" * 32)
    reader = TokenReader(tmp_path / "v", VALUES)
    assert len(reader) == 2 and "c" not in reader
    for name, value in values.items():
        assert reader[name].dtype == dtype
        np.testing.assert_array_equal(reader[name], value)
    with pytest.raises(ValueError, match="codes"):
        TokenReader(tmp_path / "v")


@pytest.mark.parametrize(
    ("first", "n_frames", "expected"),
    [(0, 1500, (0, 235)), (0, 500, (0, 79)), (750, 500, (117, 196)), (0, 3000, (0, 235))],
)
def test_a_prefix_has_an_entry_at_both_ends_of_a_stretch(first: int, n_frames: int, expected: tuple[int, int]) -> None:
    kind = ConditionKind("melody", 12, per="frame", enters="prefix", n_entries=235, rate_hz=7.8125)
    found = kind.stretch(first, n_frames, 50.0)
    assert (found.start, found.stop) == expected


def test_values_per_frame_share_a_stretch_without_overlap() -> None:
    kind = ConditionKind("beats", 1, per="frame", enters="frames", rate_hz=25.0)
    assert kind.stretch(10, 20, 50.0) == slice(5, 15)
    assert kind.stretch(30, 20, 50.0) == slice(15, 25)
