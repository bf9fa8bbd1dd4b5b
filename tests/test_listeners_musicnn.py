"""The port of musicnn: the original's own answers, its picture of sound, patches, and what the embedding does."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data_prep.listeners.musicnn.convert import fixed_patches
from data_prep.listeners.musicnn.log_mel import SPARE_FRAMES, log_mel, patches
from data_prep.listeners.musicnn.model import MODELS, WEIGHTS, load_musicnn, score
from data_prep.listeners.musicnn.network import PATCH_FRAMES

REFERENCE = Path(__file__).parent / "musicnn_reference.safetensors"
MIB = 2**20


def noise(sec: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(sec * 16_000))).astype(np.float32)


@pytest.mark.parametrize("name", MODELS)
def test_the_originals_own_outputs(name: str) -> None:
    """Logits of the original graph (TensorFlow, float32 weights); what is allowed is what half precision costs."""
    expected = load_file(REFERENCE)[f"{name}.logits"]
    with torch.inference_mode():
        found = load_musicnn(name)(torch.from_numpy(fixed_patches())).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)
    torch.testing.assert_close(found.sigmoid(), expected.sigmoid(), rtol=0, atol=1e-3)
    assert expected.std() > 1, "the answers differ from tag to tag, or nothing would be compared"


def test_a_turned_filter_is_the_plain_formula() -> None:
    """Maximum first, then normalisation, with scales of both signs."""
    front: Any = load_musicnn("mtt").front[0]
    assert (front.norm.scale < 0).any() and (front.norm.scale > 0).any()
    x = torch.randn(1, 1, 20, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        padded = torch.nn.functional.pad(x, front.padding)
        plain = front.norm(torch.relu(front.conv(padded))).amax(3)
        torch.testing.assert_close(front(x), plain, rtol=1e-5, atol=1e-5)


def test_the_picture_is_librosas() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import librosa
    audio = noise(1.0)
    mel = librosa.feature.melspectrogram(y=audio, sr=16_000, n_fft=512, hop_length=256, n_mels=96)
    expected = torch.from_numpy(np.log10(1 + 10_000 * mel).T)
    torch.testing.assert_close(log_mel(audio), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("n_frames", [1, 100, 187, 188, 205, 206, 500, 1876])
def test_patches_cover_everything_but_a_few_frames(n_frames: int) -> None:
    picture = torch.arange(n_frames, dtype=torch.float32)[:, None].expand(n_frames, 96)
    found = patches(picture)
    assert found.shape[1:] == (PATCH_FRAMES, 96)
    heard = set(found.flatten().tolist())
    assert heard <= set(range(n_frames)) and 0 in heard
    assert len(found) == 1 or n_frames - 1 in heard
    assert n_frames - len(heard) <= SPARE_FRAMES
    assert len(found) == max(1, -(-(n_frames - SPARE_FRAMES) // PATCH_FRAMES)), "no more than it takes"


def test_weights_are_small_and_half() -> None:
    for name in MODELS:
        path = WEIGHTS / f"{name}.safetensors"
        assert path.stat().st_size < 1.7 * MIB
        assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    assert "Permission to use" in (WEIGHTS / "LICENSE").read_text()


def test_a_clip_is_the_mean_of_its_patches() -> None:
    """Seven seconds: three patches, each alone, and their mean."""
    picture = patches(log_mel(noise(7.0)))
    assert len(picture) == 3, "its 438 frames are 64 more than two patches"
    found = score(noise(7.0), ["mtt"])["mtt"]
    with torch.inference_mode():
        expected = load_musicnn("mtt")(picture)
    second = score(noise(7.0), ["mtt"], every={"mtt": 2})["mtt"]
    torch.testing.assert_close(torch.from_numpy(second.hidden), expected.hidden[::2].mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.from_numpy(found.hidden), expected.hidden.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.from_numpy(found.scores), expected.logits.sigmoid().mean(0), rtol=1e-4, atol=1e-5)
