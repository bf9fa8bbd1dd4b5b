"""Every codec behind the port: equal to its own model, exact clip ends, stereo, batches, long pieces, streams."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codec_models import SMALL, TRUE, write_codec

from configs.errors import UserError
from data_prep.codec import port
from data_prep.codec.encodec_chunks import EncodecChunks
from data_prep.codec.port import Codec
from data_prep.codec.registry import load_codec
from data_prep.codec.resolve import resolve_codec

STREAMING = [name for name in SMALL if name != "xcodec2"]
WHOLE_CLIP_ENCODERS = ("xcodec", "xcodec2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder per codec, written once."""
    root = tmp_path_factory.mktemp("codecs")
    for name in SMALL:
        write_codec(root / name, name)
    return {name: root / name for name in SMALL}


@cache
def loaded(folder: Path, channels: int | None = None) -> Codec:
    return load_codec(resolve_codec(str(folder), channels=channels))


def sound(codec: Codec, n_samples: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.2 * torch.randn(codec.channels, n_samples, generator=generator)


@cache
def full_model(folder: Path) -> Any:
    from transformers import AutoModel

    model: Any = AutoModel.from_pretrained(folder)
    return model.eval()


def reference_codes(name: str, model: Any, audio: torch.Tensor, hop: int) -> torch.Tensor:
    """What the model itself makes of one clip [c, N], filled to whole frames where its own processor fills."""
    from transformers import Xcodec2FeatureExtractor

    whole = torch.nn.functional.pad(audio, (0, -audio.shape[1] % hop))[None]
    with torch.no_grad():
        if name == "encodec-24":
            return model.encode(audio[None], bandwidth=model.config.target_bandwidths[-1]).audio_codes[0, 0]
        if name == "mimi":
            return model.encode(audio[None]).audio_codes[0]
        if name == "xcodec2":
            extractor: Any = Xcodec2FeatureExtractor()
            made = extractor([audio[0]], sampling_rate=16_000, return_tensors="pt")
            return model.encode(made["input_values"], made["input_features"]).audio_codes[0]
        return model.encode(whole).audio_codes[0]


@pytest.mark.parametrize("name", [name for name in SMALL if name != "encodec-48"])
@pytest.mark.parametrize("extra", [0, 1, -1])
def test_codes_are_the_model_s_own(folders: dict[str, Path], name: str, extra: int) -> None:
    codec, model = loaded(folders[name]), full_model(folders[name])
    if name == "xcodec2" and extra == 0:
        pytest.skip("its processor adds a frame of silence to a clip that ends with its frame")
    clip = sound(codec, 12 * codec.hop_samples + extra)
    (codes,) = codec.encode([clip])
    assert codes.shape == (codec.n_codebooks, 12 + (extra > 0)) and codes.dtype == codec.spec.code_dtype
    np.testing.assert_array_equal(codes, reference_codes(name, model, clip, codec.hop_samples).numpy())
    assert len(np.unique(codes)) > 5, "codes must differ for this test to mean anything"


@pytest.mark.parametrize("name", [name for name in SMALL if name != "encodec-48"])
def test_audio_is_the_model_s_own(folders: dict[str, Path], name: str) -> None:
    codec, model = loaded(folders[name]), full_model(folders[name])
    codes = codes_of(codec, 12)
    tokens = torch.from_numpy(codes.astype(np.int64))[None]
    with torch.no_grad():
        made = {
            "encodec-24": lambda: model.decode(tokens[None], [None]).audio_values,
            "mimi": lambda: model.decode(tokens).audio_values,
            "xcodec": lambda: model.decode(tokens).audio_values,
        }.get(name, lambda: model.decode(audio_codes=tokens).audio_values)()
    expected = made.reshape(1, -1)
    audio = codec.decode(codes)
    assert audio.shape == (1, 12 * codec.hop_samples) and audio.std() > 0.01
    assert 0 <= audio.shape[1] - expected.shape[1] < codec.hop_samples / 8, "odd strides lose a few samples, no more"
    torch.testing.assert_close(audio[:, : expected.shape[1]], expected)


def codes_of(codec: Codec, n_frames: int, seed: int = 2) -> np.ndarray:
    codes = np.random.default_rng(seed).integers(0, codec.card, (codec.n_codebooks, n_frames))
    return codes.astype(codec.spec.code_dtype)


@pytest.mark.parametrize("name", list(SMALL))
def test_a_batch_of_mixed_lengths_equals_one_by_one(folders: dict[str, Path], name: str) -> None:
    codec = loaded(folders[name])
    hop = codec.hop_samples
    clips = [sound(codec, n, seed) for seed, n in enumerate([9 * hop, 9 * hop + 5, 9 * hop, 4 * hop])]
    for together, clip in zip(codec.encode(clips), clips, strict=True):
        np.testing.assert_array_equal(together, codec.encode([clip])[0])


@pytest.mark.parametrize("name", list(SMALL))
@pytest.mark.parametrize("n_samples", [1, 1000])
def test_very_short_clips(folders: dict[str, Path], name: str, n_samples: int) -> None:
    codec = loaded(folders[name])
    (codes,) = codec.encode([sound(codec, n_samples)])
    assert codes.shape == (codec.n_codebooks, codec.spec.frames_of(n_samples))
    assert codec.decode(codes).shape == (codec.channels, codes.shape[1] * codec.hop_samples)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "encodec-48"])
def test_stereo_goes_through_a_mono_codec_channel_by_channel(folders: dict[str, Path], name: str) -> None:
    mono = loaded(folders[name])
    stereo = loaded(folders[name], 2)
    assert stereo.channels == 2 and stereo.n_codebooks == 2 * mono.n_codebooks
    clip = sound(stereo, 8 * stereo.hop_samples + 3)
    (codes,) = stereo.encode([clip])
    for side in (0, 1):
        np.testing.assert_array_equal(codes[side::2], mono.encode([clip[side : side + 1]])[0])
        torch.testing.assert_close(
            stereo.decode(codes)[side : side + 1],
            mono.decode(np.ascontiguousarray(codes[side::2])),
            rtol=1e-5,
            atol=5e-5,
        )
    assert stereo.codebook_counts == tuple(2 * count for count in mono.codebook_counts)


@pytest.mark.parametrize("name", STREAMING)
@pytest.mark.parametrize("stretch", [3, 60])
def test_stretches_are_one_decode(folders: dict[str, Path], name: str, stretch: int) -> None:
    """Equal but for the order of float sums."""
    codec = loaded(folders[name], 2)
    n_frames = 170 if name == "encodec-48" else 60
    codes = codes_of(codec, n_frames)
    whole = codec.decode(codes)
    stream, parts = codec.stream(), []
    for start in range(0, n_frames, stretch):
        parts.append(stream.push(codes[:, start : start + stretch], last=start + stretch >= n_frames))
        pushed, given = min(start + stretch, n_frames), sum(part.shape[1] for part in parts) / codec.hop_samples
        assert pushed - given <= stream.latency_frames
    scale = whole.abs().max().item()
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=2e-5 * scale)


def test_causal_codecs_give_all_that_they_have(folders: dict[str, Path]) -> None:
    """Mimi from the first frame on; EnCodec at 24 kHz once its beginning, which is padded by reflection, is known."""
    mimi = loaded(folders["mimi"])
    assert mimi.stream().latency_frames == 0
    encodec = loaded(folders["encodec-24"])
    stream = encodec.stream()
    given = [stream.push(codes_of(encodec, 20)).shape[1], stream.push(codes_of(encodec, 1)).shape[1]]
    assert given == [20 * encodec.hop_samples, encodec.hop_samples]


@pytest.mark.parametrize("name", list(SMALL))
def test_long_pieces_take_the_memory_of_a_stretch(
    folders: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In stretches as in one go. Where a semantic model sees the whole clip, the codes are near and not equal."""
    codec = loaded(folders[name])
    clip = sound(codec, round(codec.sample_rate_hz * 4.0) + 11)
    once, audio = codec.encode([clip])[0], codec.decode(codes_of(codec, 200))
    monkeypatch.setattr(port, "WHOLE_SEC", 1.0)
    monkeypatch.setattr(port, "STRETCH_SEC", 0.7)
    in_stretches = codec.encode([clip])[0]
    assert in_stretches.shape == once.shape
    if name not in WHOLE_CLIP_ENCODERS:
        ends = slice(0, -1) if name == "mimi" else slice(None)  # Mimi fills a partial last frame at every layer
        assert (in_stretches != once)[:, ends].mean() < 2e-3, "only a tie may fall the other way"
    long = codec.decode(codes_of(codec, 200))
    assert long.shape == audio.shape
    if codec.can_stream:
        torch.testing.assert_close(long, audio, rtol=0, atol=2e-5 * audio.abs().max().item())


def test_encodec_at_48_khz_is_the_reference_without_overlap(folders: dict[str, Path]) -> None:
    codec, model = loaded(folders["encodec-48"]), full_model.__wrapped__(folders["encodec-48"])
    assert isinstance(codec, EncodecChunks) and codec.chunk_frames == 150 and codec.spec.channels == 2
    clip = sound(codec, 100_000)
    (codes,) = codec.encode([clip])
    model.config.overlap = 0.0
    with torch.no_grad():
        made = model.encode(clip[None], bandwidth=model.config.target_bandwidths[-1])
        expected = model.decode(*made[:2], last_frame_pad_length=made.last_frame_pad_length).audio_values[0]
    chunks = made.audio_codes[:, 0]  # [chunks, k, 150]
    np.testing.assert_array_equal(codes[1:], torch.cat(list(chunks), dim=1)[:, : codes.shape[1]].numpy())
    audio = codec.decode(codes)[:, : expected.shape[1]]
    assert 20 * abs((audio.std() / expected.std()).log10().item()) < 2 * codec.level_step_db, (
        "levels are kept to a step"
    )


def test_the_level_of_a_chunk_is_kept_to_a_twentieth_of_a_decibel() -> None:
    codec = EncodecChunks.__new__(EncodecChunks)
    codec.spec = port.CodecSpec(48_000, 320, 2, 17, 1024)
    scales = torch.tensor([[1.0], [0.5], [0.0123], [1e-8]])
    found_db = (codec._level_code(scales).float() - 1023) * 0.1
    torch.testing.assert_close(found_db[:3], 20 * scales[:3].log10(), rtol=0, atol=0.0501)
    assert codec._level_code(scales)[3] == 0
    codec.streams = 1
    assert codec.bitrate_bps() == pytest.approx(24_000 + 10) and codec.codebook_counts == tuple(range(2, 18))


def test_a_tuned_folder_has_its_own_fingerprint_and_the_same_one_when_saved_again(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    source = resolve_codec(str(folders["dac-16"]))
    model = full_model.__wrapped__(folders["dac-16"])
    model.half().save_pretrained(tmp_path / "half")
    assert resolve_codec(str(tmp_path / "half")).fingerprint() == source.fingerprint()
    model.decoder.conv1.weight.data.neg_()
    model.save_pretrained(tmp_path / "other")
    assert resolve_codec(str(tmp_path / "other")).fingerprint() != source.fingerprint()


def test_what_cannot_be_used_is_said(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        resolve_codec(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vits"}))
    with pytest.raises(UserError, match="architecture is `vits`"):
        resolve_codec(str(tmp_path))
    (tmp_path / "config.json").write_bytes((folders["dac-16"] / "config.json").read_bytes())
    with pytest.raises(UserError, match="weights in safetensors are missing"):
        resolve_codec(str(tmp_path))
    with pytest.raises(UserError, match="reads 2 channels, the audio has 1"):
        load_codec(resolve_codec(str(folders["encodec-48"]), channels=1))


def test_a_base_s_name_means_its_codec(mono_base: Path, stereo_base: Path) -> None:
    from data_prep.base_files import resolve_base
    from data_prep.codec.registry import base_codec_fingerprint

    source = resolve_codec(str(stereo_base))
    assert source.kind == "encodec" and source.channels == 2
    assert source.fingerprint() == base_codec_fingerprint(resolve_base(str(stereo_base)))
    assert resolve_codec("starter").channels == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TRUE))
def test_true_sizes(name: str, tmp_path: Path) -> None:
    write_codec(tmp_path, name, TRUE)
    codec = load_codec(resolve_codec(str(tmp_path)))
    known = {
        "encodec-24": (24_000, 320, 1, 32, 1024),
        "encodec-48": (48_000, 320, 2, 17, 1024),
        "dac-16": (16_000, 320, 1, 12, 1024),
        "dac-24": (24_000, 320, 1, 32, 1024),
        "dac-44": (44_100, 512, 1, 9, 1024),
        "mimi": (24_000, 1920, 1, 32, 2048),
        "xcodec": (16_000, 320, 1, 8, 1024),
        "xcodec2": (16_000, 320, 1, 1, 65_536),
    }
    assert codec.spec == port.CodecSpec(*known[name])
    (codes,) = codec.encode([sound(codec, 2 * codec.sample_rate_hz)])
    audio = codec.decode(codes)
    assert torch.isfinite(audio).all() and audio.shape == (codec.channels, codes.shape[1] * codec.hop_samples)
    if codec.can_stream:
        stream = codec.stream()
        half = codes.shape[1] // 2
        parts = [stream.push(codes[:, :half]), stream.push(codes[:, half:], last=True)]
        torch.testing.assert_close(torch.cat(parts, dim=1), audio, rtol=0, atol=2e-5 * audio.abs().max().item())
