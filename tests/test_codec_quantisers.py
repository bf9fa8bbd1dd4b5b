"""The quantisers of `woodshed codec train`: their codes, losses and gradients, and codecs that were saved."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codec_train_models import KINDS, TINY, model_of
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

pytest.importorskip("vector_quantize_pytorch", reason="the extra `codec-train`")

from configs.errors import UserError
from data_prep.codec import port
from data_prep.codec.port import Codec
from data_prep.codec.registry import load_codec
from data_prep.codec.resolve import resolve_codec
from finetune.codec_train.export import from_encodec, is_plain_encodec, save_codec, to_encodec
from finetune.codec_train.learner import drop_from, fix_tokens
from finetune.codec_train.model import CodecModel


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def mono(folder: Path) -> Codec:
    return load_codec(replace(resolve_codec(str(folder)), channels=1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_samples", [1600, 1613])
def test_the_exported_codec_gives_the_same_codes_and_audio(kind: str, n_samples: int, tmp_path: Path) -> None:
    model = model_of(replace(TINY, **KINDS[kind]))
    audio = noise(2, 1, n_samples)
    with torch.no_grad():
        ours = model(audio, quantize=True)
        first = model.decoder(model.quantizer(ours.latents, 1).latents.transpose(1, 2))
    assert ours.codes is not None
    save_codec(model, tmp_path / "codec")
    codec = mono(tmp_path / "codec")
    codes = np.stack(codec.encode(list(audio)))
    np.testing.assert_array_equal(codes, ours.codes.transpose(1, 2).numpy())
    for row, whole, coarse in zip(codes, ours.audio, first, strict=True):
        assert_close(codec.decode(row)[:, :n_samples], whole)
        if "grouped" not in kind:  # a group that is left out adds nothing, a missing residual neither
            assert_close(codec.decode(row[:1]), coarse)


def test_a_group_that_is_left_out_adds_nothing(tmp_path: Path) -> None:
    model = model_of(replace(TINY, quantiser="grouped"))
    save_codec(model, tmp_path / "codec")
    with torch.no_grad():
        made = model.quantizer(model(noise(1, 1, 1600), quantize=False).latents, 2)
        audio = model.decoder(made.latents.transpose(1, 2))
    codes = made.codes[0].T.numpy().astype(np.int16)
    assert codes.shape[0] == 2
    assert_close(mono(tmp_path / "codec").decode(codes), audio[0])
    assert made.latents[..., 6:].abs().max() == 0


def test_codes_of_the_coarse_codebooks_are_shared_by_frames(tmp_path: Path) -> None:
    model = model_of(replace(TINY, quantiser="hierarchical"))
    save_codec(model, tmp_path / "codec")
    codec = mono(tmp_path / "codec")
    (codes,) = codec.encode([noise(1, 16 * 103)])
    for row, stride in zip(codes, (4, 2, 1, 1), strict=True):
        groups = [row[start : start + stride] for start in range(0, 103, stride)]
        assert all((group == group[0]).all() for group in groups)
    per_code = 4 * 16_000 / 16  # bits per second of a codebook at the full frame rate
    assert codec.bitrate_bps() == pytest.approx(per_code * (1 / 4 + 1 / 2 + 2))
    assert codec.bitrate_bps(1) == pytest.approx(per_code / 4)


@pytest.mark.parametrize("kind", ["plain", "hierarchical", "cosine"])
def test_long_pieces_are_encoded_as_in_one_go(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_codec(model_of(replace(TINY, **KINDS[kind])), tmp_path / "codec")
    codec = mono(tmp_path / "codec")
    audio = noise(1, 16 * 501)
    (whole,) = codec.encode([audio])
    monkeypatch.setattr(port, "WHOLE_SEC", 0.1)
    monkeypatch.setattr(port, "STRETCH_SEC", 0.05)
    (parts,) = codec.encode([audio])
    np.testing.assert_array_equal(parts, whole)
    decoder, held = codec.stream(), []
    for start in range(0, 501, 37):
        held.append(decoder.push(whole[:, start : start + 37], last=start + 37 >= 501))
    monkeypatch.setattr(port, "WHOLE_SEC", 40.0)
    assert_close(torch.cat(held, dim=1), codec.decode(whole), atol=1e-5, rtol=1e-4)


def test_stereo_goes_channel_by_channel(tmp_path: Path) -> None:
    save_codec(model_of(replace(TINY, quantiser="hierarchical")), tmp_path / "codec")
    codec = load_codec(resolve_codec(str(tmp_path / "codec"), channels=2))
    left, right = noise(2, 1, 1600)
    (codes,) = codec.encode([torch.cat([left, right])])
    alone = mono(tmp_path / "codec").encode([left, right])
    np.testing.assert_array_equal(codes[::2], alone[0])
    np.testing.assert_array_equal(codes[1::2], alone[1])
    assert codec.bitrate_bps() == 2 * mono(tmp_path / "codec").bitrate_bps()


def test_a_damaged_codec_of_ours_is_refused(tmp_path: Path) -> None:
    save_codec(model_of(replace(TINY, cosine=True, codebook_dim=4)), tmp_path / "codec")
    config = json.loads((tmp_path / "codec" / "config.json").read_text())
    changes: list[dict[str, Any]] = [{"strides": [1, 1]}, {"strides": [1, 1, 1, "2"]}, {"strides": 1}]
    changes += [{"directions": 5}, {"directions": None}]
    sizes = [{"upsampling_ratios": "x"}, {"upsampling_ratios": [0]}, {"sampling_rate": -1}, {"target_bandwidths": []}]
    changes += [{"encodec": "EnCodec"}, {"encodec": None}, *({"encodec": config["encodec"] | size} for size in sizes)]
    for change in changes:
        (tmp_path / "codec" / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(UserError, match="do not fit together"):
            mono(tmp_path / "codec")
    (tmp_path / "codec" / "config.json").write_text(json.dumps(config))
    weights = load_file(tmp_path / "codec" / "model.safetensors")
    first = mono(tmp_path / "codec").fingerprint
    save_file(weights | {"search.0.bias": weights["search.0.bias"] + 1}, tmp_path / "codec" / "model.safetensors")
    assert mono(tmp_path / "codec").fingerprint != first, "the search is part of what the codec is"
    with pytest.raises(ValueError, match="search of their own"):
        to_encodec(model_of(replace(TINY, cosine=True, codebook_dim=4)))


def test_an_exported_codec_goes_on_learning() -> None:
    exported: Any = to_encodec(model_of(TINY))
    torch.manual_seed(1)
    begun = from_encodec(exported, CodecModel(TINY)).eval()
    audio = noise(2, 1, 800)
    with torch.no_grad():
        assert torch.equal(to_encodec(begun)(audio).audio_codes, exported(audio).audio_codes)
    begun.train()
    before = exported.quantizer.layers[0].codebook.embed.clone()
    layers: Any = begun.quantizer.layers
    begun(audio, quantize=True)  # one running mean more: the codebook moves a little and is not begun anew
    moved = (layers[0]._codebook.embed[0] - before).norm() / before.norm()
    assert 0 < moved < 0.3
    with pytest.raises(ValueError, match="no projections"):
        from_encodec(exported, CodecModel(replace(TINY, codebook_dim=6)))


@pytest.mark.parametrize("kind", ["plain", "grouped", "hierarchical"])
def test_gradients_go_straight_through_once(kind: str) -> None:
    model = model_of(replace(TINY, **KINDS[kind])).train()
    latents = torch.randn(1, 5, 12, requires_grad=True)
    model.quantizer(latents).latents.sum().backward()
    assert_close(latents.grad, torch.ones(1, 5, 12))


def test_projections_of_cosine_codebooks_learn_from_the_audio() -> None:
    model = model_of(replace(TINY, cosine=True, codebook_dim=4)).train()
    made = model(noise(2, 1, 800), quantize=True)
    made.audio.pow(2).mean().backward()
    for parts in (model.quantizer.narrow, model.quantizer.widen):
        gradients = [value.grad for name, value in parts.named_parameters() if name.endswith("weight")]
        assert len(gradients) == 4 and all(one is not None and one.abs().sum() > 0 for one in gradients)
    entries: Any = model.quantizer.layers[0]
    assert_close(entries.codebook.norm(dim=-1), torch.ones(16))


def test_commitment_and_codebook_loss_are_those_of_the_paper() -> None:
    """beta |x - sg e|^2, and |sg x - e|^2 where codebooks are learnt; nothing but the second moves a codebook."""
    for ema, weight in ((True, 0.25), (False, 1.25)):
        settings = replace(TINY, n_codebooks=1, ema=ema)
        model = model_of(settings)
        latents = torch.randn(1, 50, 12, requires_grad=True)
        made = model.quantizer(latents)
        distance = (latents - made.latents).pow(2).mean()
        assert_close(made.loss, weight * distance)
        made.loss.backward()
        assert_close(latents.grad, 0.25 * 2 * (latents - made.latents).detach() / latents.numel())
        embed: Any = model.quantizer.layers[0]
        assert (embed._codebook.embed.grad is not None) == (not ema)


@pytest.mark.parametrize("ema", [True, False])
def test_codebooks_move_towards_what_they_are_chosen_for(ema: bool) -> None:
    model = model_of(replace(TINY, ema=ema)).train()
    layer: Any = model.quantizer.layers[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    latents = 3 + torch.randn(1, 50, 12)
    before = (latents - model.quantizer(latents).latents).pow(2).mean()
    for _ in range(20):
        loss = model.quantizer(latents).loss
        optimizer.zero_grad()
        if loss.requires_grad:
            loss.backward()
            optimizer.step()
    after = (latents - model.eval().quantizer(latents).latents).pow(2).mean()
    assert after < 0.9 * before and layer.codebook.isfinite().all()


@pytest.mark.parametrize(("expire", "stays"), [(0.1, False), (0.0, True)])
def test_a_dead_code_is_replaced_unless_it_may_stay(expire: float, stays: bool) -> None:
    model = model_of(replace(TINY, expire=expire)).train()
    far = torch.full((12,), 1e3)
    layer: Any = model.quantizer.layers[0]
    layer._codebook.embed.data[0, 3] = far
    layer._codebook.embed_avg.data[0, 3] = far * layer._codebook.cluster_size[0, 3]
    for step in range(200):
        model.quantizer(torch.randn(1, 50, 12, generator=torch.Generator().manual_seed(step)))
    assert (layer.codebook[3].abs().max() > 100) == stays


def test_fixed_tokens_stay_while_the_decoder_learns() -> None:
    model = model_of(replace(TINY, codebook_dim=6))
    audio = noise(2, 1, 800)
    with torch.no_grad():
        before = model(audio, quantize=True)
    model.train()
    fix_tokens(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        (model(audio, quantize=True).audio - audio).abs().mean().backward()
        optimizer.step()
    with torch.no_grad():
        after = model.eval()(audio, quantize=True)
    assert before.codes is not None and after.codes is not None
    assert torch.equal(before.codes, after.codes)
    assert (after.audio - before.audio).abs().max() > 1e-3


def test_quantiser_dropout_uses_the_first_codebooks_in_its_share_of_steps() -> None:
    drawn = [drop_from(step, replace(TINY, quantizer_dropout=0.5)) for step in range(400)]
    assert {count for count in drawn if count is not None} == {1, 2, 3, 4}
    assert 0.4 < np.mean([count is not None for count in drawn]) < 0.6
    assert all(drop_from(step, replace(TINY, quantizer_dropout=0.0)) is None for step in range(50))


def test_plain_codecs_are_encodec_s_own() -> None:
    plain = {name for name, change in KINDS.items() if is_plain_encodec(replace(TINY, **change))}
    assert plain == set(KINDS) - {"hierarchical", "cosine", "hierarchical, cosine"}
