"""The codec trainer's parts, on a codec of a few thousand weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("vector_quantize_pytorch", reason="the recipe's own dependency (group `recipe`)")

from finetune.codec_tune.discriminators import Discriminators, discriminator_loss, generator_losses
from finetune.codec_tune.losses import MelLoss
from starter.recipe.codec_export import from_encodec, to_encodec
from starter.recipe.codec_model import CodecModel
from starter.recipe.sizes import CODEC_SIZES, CodecSize
from starter.recipe.stage import Stage, load_module
from starter.recipe.train_codec import fix_tokens
from starter.recipe.utilisation import use_of

TINY = replace(
    CODEC_SIZES["cpu"], upsampling=(4, 4), filters=2, width=12, codebook_dim=6, card=16, batch_size=2, crop_sec=0.1
)


def model_of(size: CodecSize) -> CodecModel:
    torch.manual_seed(0)
    model = CodecModel(size)
    model.train()
    model(torch.randn(4, 1, 800), quantize=True)  # the first call sets the codebooks by k-means
    return model.eval()


@pytest.mark.parametrize("codebook_dim", [6, 12], ids=["factorised", "plain"])
@pytest.mark.parametrize("n_samples", [800, 803])
def test_the_exported_codec_gives_the_same_codes_and_audio(codebook_dim: int, n_samples: int) -> None:
    model = model_of(replace(TINY, codebook_dim=codebook_dim))
    audio = torch.randn(2, 1, n_samples, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = model(audio, quantize=True)
        theirs = to_encodec(model)(audio)
    assert ours.codes is not None
    assert torch.equal(theirs.audio_codes[0].transpose(1, 2), ours.codes)
    assert_close(theirs.audio_values[..., :n_samples], ours.audio)


def test_an_exported_codec_goes_on_learning() -> None:
    size = replace(TINY, codebook_dim=12)
    exported: Any = to_encodec(model_of(size))
    torch.manual_seed(1)
    begun = from_encodec(exported, CodecModel(size)).eval()
    audio = torch.randn(2, 1, 800, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(to_encodec(begun)(audio).audio_codes, exported(audio).audio_codes)
    begun.train()
    before = exported.quantizer.layers[0].codebook.embed.clone()
    quantizer: Any = begun.quantizer
    begun(audio, quantize=True)  # one running mean more: the codebook moves a little and is not begun anew
    moved = (quantizer.layers[0]._codebook.embed[0] - before).norm() / before.norm()
    assert 0 < moved < 0.3
    with pytest.raises(ValueError, match="no projections"):
        from_encodec(exported, CodecModel(TINY))


def test_gradients_go_straight_through_once() -> None:
    model = model_of(replace(TINY, codebook_dim=12)).train()
    latents = torch.randn(1, 5, 12, requires_grad=True)
    model.quantized(latents)[0].sum().backward()
    assert_close(latents.grad, torch.ones(1, 5, 12))


def test_fewer_codebooks_are_the_first_ones() -> None:
    model = model_of(TINY)
    latents = torch.randn(1, 5, 12)
    whole, codes, _ = model.quantized(latents)
    coarse, first, _ = model.quantized(latents, drop_from=1)
    assert torch.equal(codes[..., :1], first)
    assert (coarse - whole).abs().max() > 1e-3


@pytest.mark.parametrize("ema", [True, False])
def test_codebooks_move_towards_what_they_are_chosen_for(ema: bool) -> None:
    model = model_of(replace(TINY, ema=ema)).train()
    quantizer: Any = model.quantizer
    before = quantizer.codebooks.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.quantized(3 + torch.randn(1, 50, 12))[2].backward()
    optimizer.step()
    assert (quantizer.codebooks - before).abs().max() > 1e-3


def test_a_dead_code_is_replaced() -> None:
    model = model_of(replace(TINY, codebook_dim=12)).train()
    far = torch.full((12,), 1e3)
    quantizer: Any = model.quantizer
    codebook = quantizer.layers[0]._codebook
    codebook.embed.data[0, 3] = far
    codebook.embed_avg.data[0, 3] = far * codebook.cluster_size[0, 3]
    for step in range(200):
        model.quantized(torch.randn(1, 50, 12, generator=torch.Generator().manual_seed(step)))
    assert codebook.embed[0, 3].abs().max() < 100


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


def test_use_of_codebooks() -> None:
    even = use_of(torch.arange(16).repeat(4), card=16)
    assert (even.share_used, even.perplexity, even.efficiency) == pytest.approx((1.0, 16.0, 1.0))
    one = use_of(torch.zeros(50, dtype=torch.long), card=16)
    assert (one.share_used, one.perplexity, one.efficiency) == pytest.approx((1 / 16, 1.0, 0.0))


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


def test_fixed_tokens_stay_while_the_decoder_learns() -> None:
    model = model_of(TINY)
    audio = torch.randn(2, 1, 800, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(audio, quantize=True)
    model.train()
    fix_tokens(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        made = model(audio, quantize=True)
        (made.audio - audio).abs().mean().backward()
        optimizer.step()
    with torch.no_grad():
        after = model.eval()(audio, quantize=True)
    assert before.codes is not None
    assert after.codes is not None
    assert torch.equal(before.codes, after.codes)
    assert (after.audio - before.audio).abs().max() > 1e-3
