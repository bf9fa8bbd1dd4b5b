"""SpectroStream: equal to the official code, stereo, and stretch by stretch equal to the whole."""

import numpy as np
import pytest
import torch
from mrt2_fixtures import CASES, case_inputs, reference, write_case
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from configs.errors import UserError
from data_prep.codec import port
from data_prep.codec.spectrostream import codec as module
from data_prep.codec.spectrostream.codec import SpectroStreamCodec
from data_prep.codec.spectrostream.convolutions import Memory
from data_prep.codec.spectrostream.spectrum import Synthesis, spectra
from data_prep.magenta_rt2.files import codec_source, find_files, load_magenta_codec

HOP = 1920


@pytest.fixture(scope="module", params=list(CASES))
def case(request, tmp_path_factory):
    folder = write_case(request.param, tmp_path_factory.mktemp("codec") / request.param)
    return request.param, load_magenta_codec(find_files(folder))


@pytest.fixture(scope="module")
def codec(tmp_path_factory) -> SpectroStreamCodec:
    found = load_magenta_codec(find_files(write_case("tiny", tmp_path_factory.mktemp("codec") / "tiny")))
    assert isinstance(found, SpectroStreamCodec)
    return found


def random_codes(codec, n_frames, seed=0):
    return np.random.default_rng(seed).integers(0, codec.card, (12, n_frames)).astype(np.int16)


def test_codes_and_audio_equal_the_official_codes(case):
    name, codec = case
    audio, expected = case_inputs(name)["audio"], reference(name)
    n_spectra = -(-audio.shape[1] // 480)
    features = codec.network.encoder(spectra(audio[None], n_spectra), Memory())[0]
    assert_close(features, expected["features"], rtol=1e-5, atol=1e-5)
    codes = codec.encode([audio])[0]
    assert codes.dtype == np.int16 and codes.shape == (12, 5)
    assert np.array_equal(codes, expected["codec_codes"].numpy())
    assert_close(codec.decode(codes), expected["decoded"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_samples", [1, 479, HOP - 1, HOP, HOP + 1, 3 * HOP + 480])
def test_frames_of_any_length(codec, n_samples):
    codes = codec.encode([torch.randn(2, n_samples)])[0]
    assert codes.shape == (12, -(-n_samples // HOP))
    assert codec.decode(codes).shape == (2, codes.shape[1] * HOP)


def test_nothing_gives_nothing(codec):
    assert codec.encode([torch.zeros(2, 0)])[0].shape == (12, 0)
    assert codec.decode(np.zeros((12, 0), np.int16)).shape[0] == 2


def test_long_clips_pass_in_stretches(codec, monkeypatch):
    audio = torch.randn(2, 7 * HOP + 100, generator=torch.Generator().manual_seed(3)) * 0.3
    whole = codec.encode([audio])[0]
    sound = codec.decode(whole)
    monkeypatch.setattr(module, "STRETCH_FRAMES", 2)
    monkeypatch.setattr(port, "WHOLE_SEC", 0.1)
    monkeypatch.setattr(port, "STRETCH_SEC", 0.08)
    assert np.array_equal(codec.encode([audio])[0], whole)
    assert_close(codec.decode(whole), sound, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stretches", [(1,) * 9, (4, 5), (2, 0, 6, 1), (9,)])
def test_streamed_equals_the_whole(codec, stretches):
    codes = random_codes(codec, 9)
    stream, parts, start = codec.stream(), [], 0
    for n_frames in stretches:
        stretch = codes[:, start : start + n_frames]
        start += n_frames
        parts.append(stream.push(stretch, last=start == 9))
        known = start if start == 9 else max(0, start - stream.latency_frames)
        assert sum(part.shape[1] for part in parts) == known * HOP
    assert_close(torch.cat(parts, dim=1), codec.decode(codes), rtol=1e-5, atol=1e-6)


def test_the_end_may_come_without_frames(codec):
    codes = random_codes(codec, 4)
    stream = codec.stream()
    parts = [stream.push(codes), stream.push(codes[:, :0], last=True)]
    assert_close(torch.cat(parts, dim=1), codec.decode(codes), rtol=1e-5, atol=1e-6)


def test_a_frame_reaches_no_sample_before_its_predecessor(codec):
    codes = random_codes(codec, 8)
    changed = codes.copy()
    changed[0, 5] = (changed[0, 5] + 1) % codec.card
    moved = (codec.decode(codes) - codec.decode(changed)).abs().amax(0).reshape(8, HOP).amax(1) > 0
    assert moved.tolist() == [False] * 4 + [True] * 4


def test_stereo_is_kept(codec):
    """Left and right are told apart, and exchanging them in the sound is heard."""
    audio = torch.randn(2, 4 * HOP, generator=torch.Generator().manual_seed(5)) * 0.3
    there, swapped = codec.encode([audio])[0], codec.encode([audio.flip(0)])[0]
    assert not np.array_equal(there, swapped)
    sound = codec.decode(there)
    assert (sound[0] - sound[1]).abs().max() > 1e-3


def test_spectra_and_back():
    """The highest bin, 24 kHz, is left out; what has nothing there comes back, but for the first half window."""
    seconds = torch.arange(4 * HOP) / 48_000
    audio = torch.stack([torch.sin(440 * 6.2832 * seconds), 0.5 * torch.sin(1000 * 6.2832 * seconds)])[None]
    back = Synthesis().push(spectra(audio, 16))
    assert back.shape == audio.shape
    assert_close(back[..., 480:], audio[..., 480:], rtol=0, atol=2e-3)


def test_mono_is_refused(codec):
    with pytest.raises(ValueError, match="2 channels"):
        codec.encode([torch.zeros(1, HOP)])


def test_codes_that_are_none_are_refused(codec):
    with pytest.raises(ValueError, match="0 … 63"):
        codec.decode(np.full((12, 2), 64, np.int16))


def test_without_its_encoder_it_plays_but_does_not_hear(tmp_path):
    folder = write_case("tiny", tmp_path)
    (folder / "resources" / "spectrostream" / "encoder.safetensors").unlink()
    deaf = load_magenta_codec(find_files(folder))
    assert deaf.decode(random_codes(deaf, 2)).shape == (2, 2 * HOP)
    with pytest.raises(UserError, match="not hear"):
        deaf.encode([torch.zeros(2, HOP)])


def test_one_fingerprint_for_the_same_codec(codec, case, tmp_path):
    name, other = case
    assert (other.fingerprint == codec.fingerprint) == (name == "tiny")
    folder = write_case("tiny", tmp_path)
    (folder / "resources" / "spectrostream" / "encoder.safetensors").unlink()
    assert load_magenta_codec(find_files(folder)).fingerprint == codec.fingerprint
    assert codec_source(find_files(folder)).fingerprint() == codec.fingerprint


def test_a_codec_of_another_size_than_the_language_model_is_refused(tmp_path):
    folder, other = write_case("tiny", tmp_path / "a"), write_case("other_size", tmp_path / "b")
    checkpoint = next((folder / "checkpoints").iterdir())
    strange = {k: v for k, v in load_file(next((other / "checkpoints").iterdir())).items() if "soundstream" in k}
    lm = {k: v for k, v in load_file(checkpoint).items() if "soundstream" not in k}
    save_file({**lm, **strange}, checkpoint)
    for file in (folder / "resources" / "spectrostream").iterdir():
        file.write_bytes((other / "resources" / "spectrostream" / file.name).read_bytes())
    with pytest.raises(UserError, match="32 codes a codebook"):
        load_magenta_codec(find_files(folder))


def test_an_incomplete_codec_is_refused(tmp_path):
    folder = write_case("tiny", tmp_path)
    path = folder / "resources" / "spectrostream" / "encoder.safetensors"
    tensors = load_file(path)
    tensors.pop("params/encoder/bottleneck/conv2d_3x3/conv/kernel")
    save_file(tensors, path)
    with pytest.raises(UserError, match="no complete SpectroStream"):
        load_magenta_codec(find_files(folder))
