"""The laws of LoRA on the lean LM, for every kind of adapter, start and base precision."""

import itertools
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from adapters import lora
from adapters.conditions import Conditions
from adapters.family.load import load_lm
from adapters.family.musicgen.family import FAMILY
from adapters.low_rank import LowRank
from configs.errors import UserError
from configs.train import LoraSettings
from data_prep.base_files import resolve_base
from data_prep.debug_base import write_debug_base

KINDS = {
    "plain": {},
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "pissa": {"init": "pissa"},
    "pissa_niter": {"init": "pissa_niter_4"},
    "olora": {"init": "olora"},
    "gaussian": {"init": "gaussian"},
    "pissa_rslora": {"init": "pissa", "rslora": True},
    "pissa_dora": {"init": "pissa", "dora": True},
}


@pytest.fixture
def files(mono_base):
    return resolve_base(str(mono_base))


def settings(**changes) -> LoraSettings:
    return LoraSettings(**{"rank": 4, "alpha": 6.0, **changes})


def batch(lm, seed=1):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(0, lm.card + 1, (2, lm.n_codebooks, 7), generator=generator)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    return inputs, Conditions.of_text(torch.randn(2, 3, lm.spec.text_width, generator=generator), mask)


def shake(adapter, size=0.1, seed=2):
    """Move every trained number, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters().values():
            parameter += size * torch.randn(parameter.shape, generator=generator).to(parameter)


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_start_it_changes_nothing(files, kind):
    lm = load_lm(files)
    inputs, conditions = batch(lm)
    before = lm(inputs, conditions)
    lora.attach(lm, settings(**KINDS[kind]))
    assert_close(lm(inputs, conditions), before, rtol=1e-4, atol=1e-5)


def merged_by_hand(files, updates, strength):
    """The slow reference: dense ΔW added to the weights."""
    lm = load_lm(files)
    for name, update in updates.items():
        weight: Any = lm.get_submodule(name).weight
        weight += strength * update.delta(weight)
    return lm


@pytest.mark.parametrize("kind", KINDS)
def test_updates_are_relative_to_the_original_base(files, kind):
    """Trained on one copy, put on a fresh base: same logits, and the dense ΔW says the same; at any strength."""
    trained = load_lm(files)
    adapter = lora.attach(trained, settings(**KINDS[kind]))
    shake(adapter)
    inputs, conditions = batch(trained)
    expected = trained(inputs, conditions)
    updates = adapter.updates()
    fresh = load_lm(files)
    base = fresh(inputs, conditions)
    assert (expected - base).abs().max() > 0.05
    assert_close(merged_by_hand(files, updates, 1.0)(inputs, conditions), expected, rtol=1e-4, atol=1e-4)
    lora.attach_updates(fresh, updates, 0.4)
    scaled = merged_by_hand(files, updates, 0.4)(inputs, conditions)
    assert_close(fresh(inputs, conditions), scaled, rtol=1e-4, atol=1e-4)
    lora.detach(fresh)
    lora.attach_updates(fresh, updates)
    assert_close(fresh(inputs, conditions), expected, rtol=1e-4, atol=1e-4)
    with lora.disabled(fresh):
        assert_close(fresh(inputs, conditions), base, rtol=0, atol=0)
    lora.detach(fresh)
    assert_close(fresh(inputs, conditions), base, rtol=0, atol=0)
    assert fresh.state_dict().keys() == load_lm(files).state_dict().keys()


@pytest.mark.parametrize("kind", ["plain", "dora", "pissa"])
def test_only_the_adapter_learns_and_disabling_restores_the_base(files, kind):
    lm = load_lm(files)
    inputs, conditions = batch(lm)
    untuned = lm(inputs, conditions)
    adapter = lora.attach(lm, settings(**KINDS[kind]))
    frozen = {name: p.clone() for name, p in lm.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW(adapter.parameters().values(), lr=0.05)
    learning = {name for name, p in lm.named_parameters() if p.requires_grad}
    assert learning and all("lora_" in name for name in learning)
    for _ in range(2):
        optimizer.zero_grad()
        lm(inputs, conditions).square().mean().backward()
        optimizer.step()
    for name, parameter in lm.named_parameters():
        if name in frozen:
            assert_close(parameter, frozen[name], rtol=0, atol=0)
    tuned = lm(inputs, conditions)
    assert (tuned - untuned).abs().max() > 0.01
    with adapter.disabled():
        assert_close(lm(inputs, conditions), untuned, rtol=1e-4, atol=1e-5)
    assert_close(lm(inputs, conditions), tuned, rtol=0, atol=0)
    assert {name for name, p in lm.named_parameters() if p.requires_grad} == learning


@pytest.mark.parametrize("kind", ["plain", "dora", "pissa"])
def test_checkpoint_tensors_restore_exactly(files, kind):
    first = load_lm(files)
    adapter = lora.attach(first, settings(**KINDS[kind]), seed=5)
    shake(adapter)
    second = load_lm(files)
    again = lora.attach(second, settings(**KINDS[kind]), seed=5)
    again.load_tensors(adapter.tensors())
    inputs, conditions = batch(first)
    assert_close(first(inputs, conditions), second(inputs, conditions), rtol=0, atol=0)
    with pytest.raises(UserError, match="other settings"):
        again.load_tensors({"nothing": torch.zeros(1)})


def test_start_depends_on_the_seed_only(files):
    def started(weights, seed, noise):
        torch.manual_seed(noise)
        return lora.attach(load_lm(files, weights=weights), settings(), seed).tensors()

    one, same, other = started("fp32", 1, 0), started("bf16", 1, 9), started("fp32", 2, 0)
    for name, tensor in one.items():
        assert_close(same[name], tensor, rtol=0, atol=0)
        if "lora_A" in name:
            assert (other[name] - tensor).abs().max() > 0
            assert tensor.abs().max() <= tensor.shape[1] ** -0.5


@pytest.mark.parametrize(
    ("weights", "kind"), [("bf16", "plain"), ("fp16", "dora"), ("int8", "dora"), ("nf4", "plain"), ("nf4", "dora")]
)
def test_adapter_stays_fp32_and_learns_on_every_base(tmp_path, weights, kind):
    files = resolve_base(str(write_debug_base(tmp_path / "base", hidden=64, ffn=128)))
    lm = load_lm(files, weights=weights)
    inputs, conditions = batch(lm)
    before = lm(inputs, conditions).float()
    adapter = lora.attach(lm, settings(**KINDS[kind]))
    assert {p.dtype for p in adapter.parameters().values()} == {torch.float32}
    assert_close(lm(inputs, conditions).float(), before, rtol=0.05, atol=0.05)
    shake(adapter)
    lm(inputs, conditions).float().square().mean().backward()
    for name, parameter in adapter.parameters().items():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, name


def test_dropout_acts_only_in_training_mode(files):
    lm = load_lm(files)
    adapter = lora.attach(lm, settings(dropout=0.5))
    shake(adapter)
    inputs, conditions = batch(lm)
    lm.eval()
    assert_close(lm(inputs, conditions), lm(inputs, conditions), rtol=0, atol=0)
    lm.train()
    torch.manual_seed(0)
    assert (lm(inputs, conditions) - lm(inputs, conditions)).abs().max() > 0
    assert not any(m.training for m in lm.modules() if type(m).__name__ == "MusicgenDecoderLayer")


def test_groups_reach_exactly_what_they_name(files):
    lm = load_lm(files)
    per_layer: dict[str, int] = {
        "attention": 8,
        "self_attention": 4,
        "cross_attention": 4,
        "q": 2,
        "k": 2,
        "v": 2,
        "out": 2,
        "ffn": 2,
    }
    assert set(FAMILY.targets) == {*per_layer, "text_projection"}
    for group, count in per_layer.items():
        names = lora.matched_modules(lm, [group])
        assert len(names) == 2 * count, group
        assert all(name.startswith("decoder.model.decoder.layers.") for name in names)
    assert lora.matched_modules(lm, ["text_projection"]) == ["enc_to_dec_proj"]
    both = lora.matched_modules(lm, ["attention", "ffn", "text_projection"])
    assert len(both) == len(set(both)) == 21


def test_no_target_is_a_users_mistake(mono_base):
    """An empty pattern matches the name of the whole model, which is empty."""
    with pytest.raises(UserError, match=r"targets \(none\) match no part"):
        lora.matched_modules(load_lm(resolve_base(str(mono_base))), [])


def test_nothing_matched_names_the_groups(tmp_path):
    files = resolve_base(str(write_debug_base(tmp_path / "same", hidden=16, text_width=16)))
    with pytest.raises(UserError, match="text_projection"):
        lora.attach(load_lm(files), settings(targets=["text_projection"]))


def test_trainable_count(files):
    adapter = lora.attach(load_lm(files), settings(targets=["q", "text_projection"]))
    assert adapter.n_trainable == 4 * (2 * 2 * (16 + 16) + (12 + 16))
    assert adapter.modules == ["decoder.model.decoder.layers.0.self_attn.q_proj", *adapter.modules[1:]]


@pytest.mark.parametrize(("init", "weights"), [("pissa", "int8"), ("olora", "nf4")])
def test_starts_from_the_base_are_refused_on_a_quantised_one(files, init, weights):
    with pytest.raises(UserError, match="8-bit or 4-bit"):
        lora.attach(load_lm(files, weights=weights), settings(init=init))


def test_start_from_the_base_needs_a_rank_that_fits(files):
    with pytest.raises(UserError, match="rank of at most 12"):
        lora.attach(load_lm(files), settings(init="pissa", rank=13))


@pytest.mark.parametrize("embedding", [False, True])
@pytest.mark.parametrize("dora", [False, True])
def test_low_rank_arithmetic_against_loops(embedding, dora):
    torch.manual_seed(0)
    a, b = torch.randn(3, 7), torch.randn(5, 3)
    update = LowRank(a, b, 6.0, rslora=True, embedding=embedding, magnitude=torch.rand(5) + 1 if dora else None)
    weight = torch.randn(*update.weight_shape)
    expected = torch.zeros(5, 7)
    for row, column, rank in itertools.product(range(5), range(7), range(3)):
        expected[row, column] += 6.0 / 3**0.5 * b[row, rank] * a[rank, column]
    assert update.norm() == pytest.approx(float(expected.norm()), rel=1e-5)
    whole = (weight.T if embedding else weight) + expected
    for row in range(5):
        if dora:
            assert update.magnitude is not None
            whole[row] *= update.magnitude[row] / whole[row].norm()
    moved = weight + update.delta(weight)
    assert_close(moved, whole.T if embedding else whole)
    assert_close(update.plain().delta(weight), update.delta(weight))
    assert not update.plain().rslora


def test_a_group_that_the_family_does_not_have_names_the_nearest(mono_base):
    lm = load_lm(resolve_base(str(mono_base)))
    with pytest.raises(UserError, match=r"atention(.|\n)*mean `attention`"):
        lora.matched_modules(lm, ["q", "atention"])


def test_a_forward_is_replaced_once_and_in_one_place(mono_base):
    from torch import nn

    from adapters.wrapped_forward import unwrap, wrap

    layer, x = nn.Linear(2, 2), torch.randn(1, 2)
    plain = layer(x)
    for _ in range(2):
        wrap(layer, "doubled", lambda module, forward: lambda x: 2 * forward(x))
    torch.testing.assert_close(layer(x), 2 * plain)
    with pytest.raises(RuntimeError, match="already doubled"):
        wrap(layer, "other", lambda module, forward: forward)
    assert not unwrap(layer, "other") and unwrap(layer, "doubled") and not unwrap(layer, "doubled")
    torch.testing.assert_close(layer(x), plain)
    layer.forward = lambda input: input
    with pytest.raises(RuntimeError, match="not its own"):
        wrap(layer, "late", lambda module, forward: forward)


def test_the_base_is_asked_before_anything_is_attached(mono_base):
    from finetune.bare_base import refuse_attached

    lm = load_lm(resolve_base(str(mono_base)))
    refuse_attached(lm)
    lora.attach(lm, LoraSettings(rank=2))
    with pytest.raises(RuntimeError, match="before an adapter is attached"):
        refuse_attached(lm)
