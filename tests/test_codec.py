"""The codec equals the full model's own, batched or not, mono and stereo, under both spellings of weight norm."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.codec.registry import load_base_codec


def music(channels: int, length: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(length) / 32_000
    tones = torch.stack([torch.sin(2 * torch.pi * hz * time) for hz in (220.0, 331.0)][:channels])
    return 0.3 * tones + 0.05 * torch.randn(channels, length, generator=generator)


def full_model(base: Path) -> Any:
    from transformers import MusicgenForConditionalGeneration

    model: Any = MusicgenForConditionalGeneration.from_pretrained(base)
    return model.eval()


@pytest.mark.parametrize("length", [32_000, 32_001, 31_999, 640, 1, 7])
def test_mono_equals_the_full_model(mono_base, length):
    codec = load_base_codec(resolve_base(str(mono_base)))
    audio = music(1, length)
    with torch.no_grad():
        expected = full_model(mono_base).audio_encoder.encode(audio[None]).audio_codes[0, 0]
    (codes,) = codec.encode([audio])
    assert codes.shape == (4, -(-length // 640)) and codes.dtype == np.int16
    np.testing.assert_array_equal(codes, expected.numpy())


def test_stereo_equals_what_generate_prepares(stereo_base):
    codec = load_base_codec(resolve_base(str(stereo_base)))
    audio = music(2, 40_000)
    model = full_model(stereo_base)
    with torch.no_grad():
        kwargs = model._prepare_audio_encoder_kwargs_for_generation(audio[None], {}, "input_values")
    (codes,) = codec.encode([audio])
    np.testing.assert_array_equal(codes, kwargs["decoder_input_ids"].numpy())
    assert not np.array_equal(codes[0::2], codes[1::2]), "left and right must differ for this test to mean anything"


@pytest.mark.parametrize("base", ["mono_base", "stereo_base"])
def test_a_batch_of_mixed_lengths_equals_one_by_one(base, request):
    files = resolve_base(str(request.getfixturevalue(base)))
    codec = load_base_codec(files)
    clips = [music(files.spec.channels, n, seed) for seed, n in enumerate([16_000, 20_000, 16_000, 20_001, 16_000])]
    for together, clip in zip(codec.encode(clips), clips, strict=True):
        np.testing.assert_array_equal(together, codec.encode([clip])[0])


def test_decode_is_the_full_models(stereo_base):
    codec = load_base_codec(resolve_base(str(stereo_base)))
    (codes,) = codec.encode([music(2, 20_000)])
    encodec = full_model(stereo_base).audio_encoder
    tokens = torch.from_numpy(codes.astype(np.int64))[None, None]
    with torch.no_grad():
        left, right = (encodec.decode(tokens[:, :, side::2], [None]).audio_values[0, 0] for side in (0, 1))
    audio = codec.decode(codes)
    assert audio.shape == (2, codes.shape[1] * 640)
    torch.testing.assert_close(audio, torch.stack([left, right]))
    assert audio.std() > 0.01, "the debug codec must not be silent"


def test_newer_names_of_weight_norm_load_to_the_same_codec(mono_base, tmp_path):
    tensors = load_file(mono_base / "model.safetensors")
    assert any(name.endswith("weight_g") for name in tensors)
    renamed = {
        name.replace(".weight_g", ".parametrizations.weight.original0").replace(
            ".weight_v", ".parametrizations.weight.original1"
        ): tensor
        for name, tensor in tensors.items()
    }
    newer = copy_base(mono_base, tmp_path / "newer", renamed)
    old, new = load_base_codec(resolve_base(str(mono_base))), load_base_codec(resolve_base(str(newer)))
    assert old.fingerprint == new.fingerprint
    np.testing.assert_array_equal(old.encode([music(1, 20_000)])[0], new.encode([music(1, 20_000)])[0])


def test_an_incomplete_codec_is_refused(mono_base, tmp_path):
    tensors = load_file(mono_base / "model.safetensors")
    lacking = {n: t for n, t in tensors.items() if "quantizer.layers.2.codebook.embed" not in n}
    folder = copy_base(mono_base, tmp_path / "lacking", lacking)
    with pytest.raises(UserError, match="incomplete"):
        load_base_codec(resolve_base(str(folder)))


def test_a_codec_that_does_not_fit_is_refused(mono_base, tmp_path):
    folder = copy_base(mono_base, tmp_path / "other", load_file(mono_base / "model.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    config["decoder"]["vocab_size"] = 128
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="does not fit"):
        load_base_codec(resolve_base(str(folder)))


def test_wrong_input_is_refused(mono_base):
    codec = load_base_codec(resolve_base(str(mono_base)))
    with pytest.raises(ValueError, match="channels"):
        codec.encode([music(2, 1000)])
    with pytest.raises(ValueError, match="tokens must lie"):
        codec.decode(np.full((4, 3), codec.card, dtype=np.int16))


def copy_base(source: Path, target: Path, tensors: dict[str, torch.Tensor]) -> Path:
    target.mkdir()
    for file in source.glob("*.json"):
        (target / file.name).write_bytes(file.read_bytes())
    save_file({n: t.contiguous() for n, t in tensors.items()}, target / "model.safetensors")
    return target
