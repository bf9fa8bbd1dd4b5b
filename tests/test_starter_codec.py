"""How the starter's codec is trained, on one of a few thousand weights; the trainer itself: test_codec_train."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

pytest.importorskip("vector_quantize_pytorch", reason="the recipe's own dependency (group `recipe`)")

from finetune.codec_train.model import CodecModel
from finetune.codec_train.settings import CodecSettings
from finetune.codec_tune.discriminators import Discriminators, discriminator_loss, generator_losses
from finetune.codec_tune.losses import MelLoss
from starter.recipe.sizes import CODEC_SIZES
from starter.recipe.stage import Stage, load_module, weights_of
from starter.recipe.train_codec import train_codec

TINY = replace(
    CODEC_SIZES["cpu"], upsampling=(4, 4), filters=2, width=12, codebook_dim=6, card=16, batch_size=2, crop_sec=0.1
)


def model_of(size: CodecSettings) -> CodecModel:
    torch.manual_seed(0)
    model = CodecModel(size)
    model.train()
    model(torch.randn(4, 1, 800), quantize=True)  # the first call sets the codebooks by k-means
    return model.eval()


def test_mel_loss_is_zero_only_for_the_same_sound() -> None:
    loss = MelLoss(16_000)
    audio = 0.1 * torch.randn(1, 1, 8_000)
    assert loss(audio, audio).item() == 0
    assert loss(0.5 * audio, audio).item() == pytest.approx(0.693, abs=0.1)


def test_a_smeared_attack_costs_more_than_its_mean_distance() -> None:
    loss = MelLoss(16_000)
    click, smeared = torch.zeros(1, 1, 8_000), torch.zeros(1, 1, 8_000)
    click[..., 4_000:4_050] = 0.5
    smeared[..., 3_000:5_000] = 0.5
    assert loss.with_attacks(click, click)[1].item() == 0
    wrong = loss.with_attacks(smeared, click)[1].item()
    quieter = loss.with_attacks(0.7 * click, click)[1].item()
    assert wrong > 3 * quieter > 0


def test_discriminators_teach_both_sides() -> None:
    torch.manual_seed(0)
    judges = Discriminators(filters=2, windows=(256, 128))
    real = torch.randn(1, 1, 2_000)
    made = torch.randn(1, 1, 2_000, requires_grad=True)
    fooling, matching = generator_losses(judges(real), judges(made))
    (fooling + matching).backward()
    assert made.grad is not None
    assert made.grad.abs().sum() > 0
    assert generator_losses(judges(real), judges(real))[1].item() == 0
    optimizer = torch.optim.Adam(judges.parameters(), lr=1e-2)
    first = discriminator_loss(judges(real), judges(made.detach()))
    for _ in range(10):
        optimizer.zero_grad()
        loss = discriminator_loss(judges(real), judges(made.detach()))
        loss.backward()
        optimizer.step()
    assert loss.item() < first.item()


def test_a_stage_goes_on_where_it_ended(tmp_path: Path) -> None:
    """Weights, codebooks and optimizer moments come back: the next step is the one that would have come."""

    def stage(folder: Path, codec: CodecModel) -> Stage:
        optimizer = torch.optim.AdamW(codec.parameters(), lr=1e-3)
        return Stage(folder, {"model": codec}, {"model": optimizer}, minutes=1)

    def train(run: Stage, steps: int) -> None:
        codec = run.modules["model"].train()
        for _ in range(steps):
            wave = torch.randn(2, 1, 800, generator=torch.Generator().manual_seed(run.step))
            made = codec(wave, quantize=True)
            run.optimizers["model"].zero_grad()
            (made.audio.abs().mean() + made.commitment).backward()
            run.optimizers["model"].step()
            run.step += 1

    straight = stage(tmp_path / "straight", model_of(TINY))
    torch.manual_seed(3)
    train(straight, 3)
    straight.save()
    torch.manual_seed(5)
    train(straight, 2)
    resumed = stage(tmp_path / "straight", CodecModel(TINY))
    assert resumed.step == 3
    torch.manual_seed(5)
    train(resumed, 2)
    assert_close(resumed.modules["model"].state_dict(), straight.modules["model"].state_dict(), rtol=0, atol=0)
    loaded = load_module(tmp_path / "straight", "model", CodecModel(TINY))
    assert not loaded.training


def test_the_recipe_trains_on_rendered_pieces(tmp_path: Path) -> None:
    """Three steps in two stages, the second with the tokens fixed: only the decoder changes."""
    audio = tmp_path / "audio"
    audio.mkdir()
    samples = (3000 * np.random.default_rng(0).normal(size=32_000)).astype(np.int16)
    np.save(audio / "0000000-0000001.npy", samples)
    place = {"first_sample": 0, "n_samples": 32_000, "sample_rate_hz": 16_000}
    (audio / "0000000-0000001.jsonl").write_text(json.dumps(place) + "\n")
    size = replace(TINY, steps=2, quantize_from=0)
    assert train_codec(audio, tmp_path / "codec", size, minutes=1) == 2
    first = weights_of(load_file(tmp_path / "codec" / "state.safetensors"), "model")
    assert "perplexity" in (tmp_path / "codec" / "log.jsonl").read_text()
    longer = replace(size, steps=4)
    assert train_codec(audio, tmp_path / "codec", longer, minutes=1, tokens_fixed=True) == 4
    second = weights_of(load_file(tmp_path / "codec" / "state.safetensors"), "model")
    changed = {name.partition(".")[0] for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"decoder", "quantizer"}
    moved = {name for name in first if name.startswith("quantizer") and not torch.equal(first[name], second[name])}
    assert all("project_out" in name for name in moved), moved
    with pytest.raises(ValueError, match="collection is at"):
        train_codec(audio, tmp_path / "other", replace(size, sample_rate_hz=32_000), minutes=1)
