"""The lean LM against the full transformers model, its loading, precisions and recomputation."""

import copy
import json
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import MusicgenForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from adapters.conditions import Conditions, batch_conditions
from adapters.family.lm import DTYPES
from adapters.family.load import load_lm
from adapters.family.recompute import enable_checkpointing
from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.debug_base import write_debug_base


def random_batch(lm, lengths=(5, 3, 0), steps=11, seed=1):
    """Inputs and conditions; row lengths are text tokens, 0 is the null condition."""
    generator = torch.Generator().manual_seed(seed)
    B = len(lengths)
    inputs = torch.randint(0, lm.card + 1, (B, lm.n_codebooks, steps), generator=generator)
    L = max(max(lengths), 1)
    mask = torch.arange(L) < torch.tensor(lengths)[:, None]
    return inputs, Conditions.of_text(torch.randn(B, L, lm.spec.text_width, generator=generator), mask)


def full_logits(full, inputs, conditions):
    """The reference: transformers' whole model, given the text encoder's output."""
    B, K, S = inputs.shape
    with torch.no_grad():
        out = full(
            encoder_outputs=BaseModelOutput(last_hidden_state=conditions["text"].values),
            attention_mask=conditions["text"].mask.long(),
            decoder_input_ids=inputs.reshape(B * K, S),
        )
    return out.logits.view(B, K, S, -1)


@pytest.fixture(params=["mono_base", "stereo_base"])
def files(request):
    return resolve_base(str(request.getfixturevalue(request.param)))


def test_logits_equal_the_full_model(files):
    lm: Any = load_lm(files)
    full = MusicgenForConditionalGeneration.from_pretrained(files.folder).eval()
    inputs, conditions = random_batch(lm)
    ours = lm(inputs, conditions)
    assert ours.shape == (3, lm.n_codebooks, 11, lm.card)
    assert_close(ours, full_logits(full, inputs, conditions))
    assert ours.std() > 0.1


def test_dropped_row_equals_transformers_null_condition(files):
    lm: Any = load_lm(files)
    full = MusicgenForConditionalGeneration.from_pretrained(files.folder).eval()
    inputs, conditions = random_batch(lm, lengths=(4, 4))
    dropped = conditions.dropped(torch.tensor([False, True]))
    null = full.get_unconditional_inputs(num_samples=1)
    K, S = inputs.shape[1:]
    with torch.no_grad():
        reference = full(
            encoder_outputs=null.encoder_outputs,
            attention_mask=null.attention_mask,
            decoder_input_ids=inputs[1].reshape(K, S),
        ).logits.view(K, S, -1)
    ours = lm(inputs, dropped)
    assert_close(ours[1], reference)
    assert_close(ours[0], lm(inputs, conditions)[0])
    assert (ours[1] - lm(inputs, conditions)[1]).abs().max() > 1e-3
    assert_close(lm(inputs[1:], Conditions.null(1, lm.spec))[0], reference)


def test_masked_text_is_never_read(mono_base):
    lm: Any = load_lm(resolve_base(str(mono_base)))
    inputs, conditions = random_batch(lm)
    poisoned = conditions["text"].values.masked_fill(~conditions["text"].mask[..., None], 1e4)
    assert_close(lm(inputs, Conditions.of_text(poisoned, conditions["text"].mask)), lm(inputs, conditions))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_no_nan_where_a_row_is_masked_altogether(mono_base, attention):
    lm: Any = load_lm(resolve_base(str(mono_base)), weights="bf16")
    lm.decoder.set_attn_implementation(attention)
    inputs, conditions = random_batch(lm, lengths=(0, 0))
    assert torch.isfinite(lm(inputs, conditions)).all()


def test_text_projection_is_absent_exactly_when_the_full_model_has_none(tmp_path):
    files = resolve_base(str(write_debug_base(tmp_path / "same", hidden=16, text_width=16)))
    lm: Any = load_lm(files)
    full = MusicgenForConditionalGeneration.from_pretrained(files.folder).eval()
    assert lm.enc_to_dec_proj is None and not hasattr(full, "enc_to_dec_proj")
    inputs, conditions = random_batch(lm)
    assert_close(lm(inputs, conditions), full_logits(full, inputs, conditions))


def test_module_names_and_tensors_are_those_of_the_full_model(files):
    lm: Any = load_lm(files)
    full = MusicgenForConditionalGeneration.from_pretrained(files.folder)
    of_the_full = {n: t for n, t in full.state_dict().items() if n.startswith(("decoder.", "enc_to_dec_proj."))}
    ours = lm.state_dict()
    assert ours.keys() == of_the_full.keys()
    for name, tensor in ours.items():
        assert_close(tensor, of_the_full[name], rtol=0, atol=0)
    assert not any(p.requires_grad for p in lm.parameters())


@pytest.mark.parametrize("weights", ["bf16", "fp16"])
def test_half_precision_stays_close(mono_base, weights):
    files = resolve_base(str(mono_base))
    exact, half = load_lm(files), load_lm(files, weights=weights)
    assert half.dtype == DTYPES[weights]
    assert {t.dtype for t in (*half.parameters(), *half.buffers())} == {half.dtype}
    inputs, conditions = random_batch(exact)
    assert_close(half(inputs, conditions).float(), exact(inputs, conditions), rtol=0.1, atol=0.1)


@pytest.mark.parametrize(("weights", "layer", "mean_error"), [("int8", "Linear8bit", 0.05), ("nf4", "Linear4bit", 0.4)])
def test_quantised_base_stays_close_and_passes_gradients(tmp_path, weights, layer, mean_error):
    files = resolve_base(str(write_debug_base(tmp_path / "base", hidden=64, ffn=128)))
    exact, quantised = load_lm(files), load_lm(files, weights=weights)
    kinds = {name: type(m).__name__ for name, m in quantised.named_modules() if isinstance(m, torch.nn.Linear)}
    assert {kind for name, kind in kinds.items() if ".layers." in name} == {layer}
    assert {kind for name, kind in kinds.items() if ".layers." not in name} == {"Linear"}
    inputs, conditions = random_batch(exact)
    error = (quantised(inputs, conditions) - exact(inputs, conditions)).abs().mean()
    assert 0 < error < mean_error
    states = conditions["text"].values.requires_grad_()
    quantised(inputs, Conditions.of_text(states, conditions["text"].mask)).sum().backward()
    assert states.grad is not None and torch.isfinite(states.grad).all() and states.grad[0].abs().sum() > 0


@pytest.mark.parametrize(("layers", "partly", "made"), [(1, 0, 2), ("all", 0, 2), (0, 2, 1), (1, 1, 2)])
def test_recomputation_changes_no_gradient(mono_base, layers, partly, made, monkeypatch):
    """Bit for bit. In part: the linear layers run once, the activation twice."""
    files = resolve_base(str(mono_base))
    lm: Any = load_lm(files)
    inputs, conditions = random_batch(lm)

    def gradients():
        lm.zero_grad()
        lm.requires_grad_(True)
        lm(inputs, conditions).square().mean().backward()
        return {name: p.grad.clone() for name, p in lm.named_parameters() if p.grad is not None}

    plain = gradients()
    first, last = lm.decoder.model.decoder.layers
    calls = count_calls(first.fc1)
    enable_checkpointing(lm, layers, partly)
    made_last: list[int] = []
    plain_make = type(last.activation_fn).forward
    monkeypatch.setattr(
        type(last.activation_fn), "forward", lambda self, x: (made_last.append(1), plain_make(self, x))[1]
    )
    enable_checkpointing(lm, 0)
    enable_checkpointing(lm, layers, partly)
    recomputed = gradients()
    assert calls == [made]
    recomputed_layers = 2 if layers == "all" else layers + partly
    assert len(made_last) == 2 + recomputed_layers
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        assert_close(recomputed[name], gradient, rtol=0, atol=0)
    enable_checkpointing(lm, 0)
    gradients()
    assert calls == [made + 1]


def count_calls(module):
    calls = [0]
    module.register_forward_pre_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    return calls


def test_training_mode_reaches_only_adapter_dropout(mono_base):
    lm: Any = load_lm(resolve_base(str(mono_base))).train()
    assert lm.training
    assert not any(m.training for m in lm.modules() if m is not lm)
    inputs, conditions = random_batch(lm)
    assert_close(lm(inputs, conditions), lm(inputs, conditions), rtol=0, atol=0)


def broken_copy(base, folder, change):
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return resolve_base(str(folder))


def test_missing_unexpected_and_misshapen_tensors_are_all_named(mono_base, tmp_path):
    def change(tensors):
        tensors.pop("decoder.lm_heads.1.weight")
        tensors["decoder.lm_heads.9.weight"] = torch.zeros(2)
        tensors["decoder.model.decoder.layers.0.fc1.weight"] = torch.zeros(3, 3)

    with pytest.raises(UserError) as caught:
        load_lm(broken_copy(mono_base, tmp_path / "broken", change))
    for part in ("missing: decoder.lm_heads.1", "unexpected: decoder.lm_heads.9", "fc1.weight: shape [3, 3]"):
        assert part in caught.value.what


def test_projection_the_configuration_does_not_have_is_refused(tmp_path):
    base = write_debug_base(tmp_path / "same", hidden=16, text_width=16)

    def change(tensors):
        tensors["enc_to_dec_proj.weight"] = torch.zeros(16, 16)

    with pytest.raises(UserError, match="unexpected: enc_to_dec_proj"):
        load_lm(broken_copy(base, tmp_path / "broken", change))


def test_stored_position_table_of_old_checkpoints_is_ignored(mono_base, tmp_path):
    def change(tensors):
        tensors["decoder.model.decoder.embed_positions.weights"] = torch.zeros(2048, 16)

    old: Any = load_lm(broken_copy(mono_base, tmp_path / "old", change))
    new: Any = load_lm(resolve_base(str(mono_base)))
    inputs, conditions = random_batch(new)
    assert_close(old(inputs, conditions), new(inputs, conditions), rtol=0, atol=0)


def test_the_shared_configuration_is_left_alone(mono_base):
    files = resolve_base(str(mono_base))
    before = json.dumps(copy.deepcopy(files.config), default=str, sort_keys=True)
    load_lm(files)
    assert json.dumps(files.config, default=str, sort_keys=True) == before


def test_a_melody_for_a_base_without_one_is_an_error(mono_base):
    lm: Any = load_lm(resolve_base(str(mono_base)))
    with pytest.raises(ValueError, match="melody"):
        batch_conditions([{"melody": torch.zeros(2, 12)}], lm.spec)
