"""Conversions: logits are equal before and after, whatever format was between."""

import json
import shutil
import struct

import pytest
import torch
from adapter_fixtures import FC, HEAD, MODULES, TABLE, TEXT, Q, fixed_batch, lm_logits, write_adapter
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from torch.testing import assert_close
from transformers import MusicgenForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from adapters import adapter_files
from adapters.convert.audiocraft_names import packing
from adapters.convert.kohya import flat_name, from_kohya
from adapters.convert.read import Cut, kind_of
from adapters.convert.run import convert
from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.debug_base import write_debug_base
from finetune.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def adapter(mono_base, tmp_path_factory):
    return write_adapter(tmp_path_factory.mktemp("adapter") / "mine", mono_base, modules=(*MODULES, TABLE, HEAD))


@pytest.fixture(scope="module")
def wanted(mono_base, adapter):
    """Logits of base and adapter."""
    return lm_logits(resolve_base(str(mono_base)), adapter_files.load(adapter).updates)


def as_torch_attention(state, prefix, dim, heads):
    """PyTorch's own multi-head attention with audiocraft's packed weight: its layout is the same by design."""
    attention = nn.MultiheadAttention(dim, heads, bias=False, batch_first=True)
    keys = {"in_proj_weight": f"{prefix}.in_proj_weight", "out_proj.weight": f"{prefix}.out_proj.weight"}
    attention.load_state_dict({ours: state[theirs] for ours, theirs in keys.items()})
    return attention.eval()


def reference_logits(state, codes, text_states, *, heads, layers):
    """audiocraft's LM restated with PyTorch's own layers: pre-norm, sinusoids, cross-attention, GELU, one head each."""
    dim = state["out_norm.weight"].shape[0]
    norm = lambda name, x: functional.layer_norm(x, (dim,), state[f"{name}.weight"], state[f"{name}.bias"])  # noqa: E731
    projection = "condition_provider.conditioners.description.output_proj"
    text = functional.linear(text_states, state[f"{projection}.weight"], state[f"{projection}.bias"])
    x = sum(functional.embedding(codes[:, k], state[f"emb.{k}.weight"]) for k in range(codes.shape[1]))
    steps = torch.arange(codes.shape[2]).view(1, -1, 1).float()
    phase = steps / 10_000 ** (torch.arange(dim // 2).view(1, 1, -1) / (dim // 2 - 1))
    x = x + torch.cat([phase.cos(), phase.sin()], dim=-1)
    causal = torch.ones(codes.shape[2], codes.shape[2], dtype=torch.bool).triu(1)
    for number in range(layers):
        layer = f"transformer.layers.{number}"
        inside = norm(f"{layer}.norm1", x)
        attend = as_torch_attention(state, f"{layer}.self_attn", dim, heads)
        x = x + attend(inside, inside, inside, attn_mask=causal, need_weights=False)[0]
        cross = as_torch_attention(state, f"{layer}.cross_attention", dim, heads)
        x = x + cross(norm(f"{layer}.norm_cross", x), text, text, need_weights=False)[0]
        hidden = functional.gelu(functional.linear(norm(f"{layer}.norm2", x), state[f"{layer}.linear1.weight"]))
        x = x + functional.linear(hidden, state[f"{layer}.linear2.weight"])
    x = norm("out_norm", x)
    return torch.stack([functional.linear(x, state[f"linears.{k}.weight"]) for k in range(codes.shape[1])], dim=1)


@torch.no_grad()
def test_audiocraft_state_gives_the_same_logits(mono_base, adapter, wanted, tmp_path):
    assert convert(adapter, "audiocraft", tmp_path / "ac", base=resolve_base(str(mono_base))) == (0, [])
    state = load_file(tmp_path / "ac" / "state_dict.safetensors")
    codes, conditions = fixed_batch(64, 4, 12)
    got = reference_logits(state, codes[:1], conditions["text"].values[:1], heads=2, layers=2)
    assert_close(got, wanted[:1], rtol=1e-4, atol=1e-4)  # the first row's text is not padded
    assert not any("weights" in name or "text_encoder" in name for name in state)


def test_audiocraft_settings_build_an_lm_of_this_size(mono_base, stereo_base, adapter, tmp_path):
    import yaml

    convert(adapter, "audiocraft", tmp_path / "mono", base=resolve_base(str(mono_base)))
    convert(stereo_base, "audiocraft", tmp_path / "stereo")
    mono, stereo = (yaml.safe_load((tmp_path / name / "xp_cfg.yaml").read_text()) for name in ("mono", "stereo"))
    lm = mono["transformer_lm"]
    assert (lm["dim"], lm["num_heads"], lm["num_layers"], lm["n_q"], lm["card"]) == (16, 2, 2, 4, 64)
    assert lm["hidden_scale"] * lm["dim"] == 32
    assert mono["codebooks_pattern"]["delay"]["delays"] == [0, 1, 2, 3]
    assert stereo["codebooks_pattern"]["delay"]["delays"] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert stereo["interleave_stereo_codebooks"]["use"] and stereo["transformer_lm"]["n_q"] == 8


def test_the_page_beside_it_makes_what_audiocraft_reads(mono_base, adapter, tmp_path, monkeypatch):
    """The recipe in its README is run as it stands; what it writes needs no code to be read."""
    convert(adapter, "audiocraft", tmp_path / "ac", base=resolve_base(str(mono_base)))
    recipe = (tmp_path / "ac" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path / "ac")
    exec(compile(recipe, "README.md", "exec"), {})
    package = torch.load("state_dict.bin", weights_only=True)
    assert package["best_state"].keys() == load_file("state_dict.safetensors").keys()
    assert "transformer_lm:" in package["xp.cfg"]


def test_round_trip_through_audiocraft(mono_base, adapter, wanted, tmp_path):
    base = resolve_base(str(mono_base))
    convert(adapter, "audiocraft", tmp_path / "ac", base=base)
    convert(tmp_path / "ac", "transformers", tmp_path / "model", base=base)
    assert_close(lm_logits(resolve_base(str(tmp_path / "model"))), wanted, rtol=1e-4, atol=1e-4)
    error, _ = convert(tmp_path / "ac", "peft", tmp_path / "again", base=base, cut=Cut(rank=2), name="again")
    assert error < 1e-4
    again = adapter_files.load(tmp_path / "again")
    assert_close(lm_logits(base, again.updates), wanted, rtol=1e-3, atol=1e-3)
    assert again.woodshed and again.woodshed.made and again.woodshed.made.method == "extract"
    assert again.updates.keys() == adapter_files.load(adapter).updates.keys()


def test_merged_folder_and_back(mono_base, adapter, wanted, tmp_path):
    base = resolve_base(str(mono_base))
    convert(adapter, "transformers", tmp_path / "merged", base=base)
    full = MusicgenForConditionalGeneration.from_pretrained(tmp_path / "merged").eval()
    assert_close(full_logits(full), wanted, rtol=1e-4, atol=1e-4)
    assert convert(tmp_path / "merged", "peft", tmp_path / "again", base=base, cut=Cut(rank=2)).error < 1e-4
    assert_close(lm_logits(base, adapter_files.load(tmp_path / "again").updates), wanted, rtol=1e-3, atol=1e-3)


def test_strength_goes_into_what_is_merged(mono_base, adapter, tmp_path):
    base = resolve_base(str(mono_base))
    convert(adapter, "audiocraft", tmp_path / "half", base=base, strength=0.5, dtype="fp16")
    state = load_file(tmp_path / "half" / "state_dict.safetensors")
    weights, updates = load_file(mono_base / "model.safetensors"), adapter_files.load(adapter).updates
    moved = weights[f"{FC}.weight"] + 0.5 * updates[FC].delta()
    assert_close(state["transformer.layers.0.linear1.weight"], moved.half())
    packed = state["transformer.layers.1.self_attn.in_proj_weight"]
    assert packed.shape == (48, 16) and packed.dtype == torch.float16
    assert_close(packed[:16], (weights[f"{Q}.weight"] + 0.5 * updates[Q].delta()).half())
    assert_close(packed[16:32], weights[Q.replace("q_proj", "k_proj") + ".weight"].half())
    assert_close(packed[32:], weights[Q.replace("q_proj", "v_proj") + ".weight"].half())


def full_logits(model):
    codes, conditions = fixed_batch(64, 4, 12)
    with torch.no_grad():
        out = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=conditions["text"].values),
            attention_mask=conditions["text"].mask.long(),
            decoder_input_ids=codes.reshape(-1, codes.shape[2]),
        )
    return out.logits.view(*codes.shape, -1)


def test_kohya_and_back(mono_base, tmp_path):
    base = resolve_base(str(mono_base))
    for number, more in enumerate(({"modules": (*MODULES, TABLE, HEAD)}, {"rslora": True}, {"dora": True})):
        folder = write_adapter(tmp_path / f"a{number}", mono_base, **more)
        file = tmp_path / f"{number}.safetensors"
        assert convert(folder, "kohya", file).error == 0
        assert kind_of(file) == "kohya"
        convert(file, "peft", tmp_path / f"b{number}", base=base)
        before, after = (adapter_files.load(tmp_path / f"{letter}{number}") for letter in "ab")
        assert_close(lm_logits(base, after.updates), lm_logits(base, before.updates), rtol=1e-5, atol=1e-5)
        assert after.woodshed and after.woodshed.made and after.woodshed.made.method == "convert"


def test_kohya_names_and_metadata(mono_base, tmp_path):
    folder = write_adapter(tmp_path / "mine", mono_base, rslora=True)
    convert(folder, "kohya", tmp_path / "mine.safetensors")
    with safe_open(tmp_path / "mine.safetensors", framework="pt") as opened:
        names, told = set(opened.keys()), opened.metadata()
        name = "lora_unet_decoder_model_decoder_layers_1_self_attn_q_proj"
        parts = ("lora_down.weight", "lora_up.weight", "alpha")
        assert names == {f"{flat_name(module)}.{part}" for module in MODULES for part in parts}
        update = adapter_files.load(folder).updates[Q]
        up, down = (opened.get_tensor(f"{name}.lora_{part}.weight") for part in ("up", "down"))
        assert_close(float(opened.get_tensor(f"{name}.alpha")) / 2 * up @ down, update.delta())
    assert told["ss_output_name"] == "mine" and told["ss_network_dim"] == "2"
    assert float(told["ss_network_alpha"]) == pytest.approx(3 * 2**0.5, rel=1e-4)
    assert told["ss_base_model_version"] == "musicgen" and told["ss_sd_model_name"] == "mono"
    assert json.loads(told["ss_tag_frequency"]) == {"woodshed": {"in the style of mine": 1}}


def dreambooth_targets():
    """What musicgen-dreamboothing's script adapts."""
    names = ["enc_to_dec_proj", "audio_enc_to_dec_proj", "k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2"]
    return names + [f"lm_heads.{k}" for k in range(4)] + [f"embed_tokens.{k}" for k in range(4)]


def test_dreamboothing_adapters_load_as_they_are(mono_base, tmp_path):
    full = MusicgenForConditionalGeneration.from_pretrained(mono_base)
    torch.manual_seed(2)
    model = get_peft_model(full, LoraConfig(r=3, lora_alpha=6, target_modules=dreambooth_targets()))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter += 0.1 * torch.randn_like(parameter)
    theirs = full_logits(model.eval())
    model.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    adapter = adapter_files.load(tmp_path / "theirs")
    assert {TEXT, TABLE, HEAD, Q, FC} <= adapter.updates.keys()
    base = resolve_base(str(mono_base))
    assert_close(lm_logits(base, adapter.updates), theirs, rtol=1e-4, atol=1e-4)
    convert(tmp_path / "theirs", "peft", tmp_path / "described", base=base, name="punk")
    described = adapter_files.load(tmp_path / "described")
    assert described.woodshed and described.woodshed.name == "punk"
    again = PeftModel.from_pretrained(
        MusicgenForConditionalGeneration.from_pretrained(mono_base), str(tmp_path / "described")
    )
    assert_close(full_logits(again.eval()), theirs, rtol=1e-4, atol=1e-4)


def test_melody_adapters_load_and_are_told_apart(mono_base, tmp_path):
    folder = write_adapter(tmp_path / "melody", mono_base)
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors["base_model.model.audio_enc_to_dec_proj.lora_A.weight"] = torch.randn(2, 12)
    tensors["base_model.model.audio_enc_to_dec_proj.lora_B.weight"] = torch.randn(16, 2)
    save_file(tensors, folder / "adapter_model.safetensors")
    assert "audio_enc_to_dec_proj" in adapter_files.load(folder).updates
    with pytest.raises(UserError, match="melody"):
        convert(folder, "audiocraft", tmp_path / "ac", base=resolve_base(str(mono_base)))
    assert not (tmp_path / "ac").exists()


def test_every_lm_tensor_has_one_place(mono_base):
    names = [n for n in load_file(mono_base / "model.safetensors") if n.startswith(("decoder.", "enc_to_dec_proj."))]
    packed = packing(names)
    assert sorted(name for parts in packed.values() for name in parts) == sorted(names)
    assert all(len(parts) == (3 if theirs.endswith("in_proj_weight") else 1) for theirs, parts in packed.items())
    with pytest.raises(UserError, match="text_encoder"):
        packing(["text_encoder.shared.weight"])


def write_state(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


WRONG_STATES = {
    "has no": lambda t: t.pop("out_norm.weight"),
    "no place for": lambda t: t.update(surprise=torch.zeros(1)),
    "the base's is": lambda t: t.update({"emb.1.weight": torch.zeros(3, 3)}),
    "no numbers": lambda t: t["linears.0.weight"].fill_(float("nan")),
}


@pytest.mark.parametrize("words", WRONG_STATES)
def test_state_dicts_that_do_not_fit_are_refused(mono_base, adapter, tmp_path, words):
    base = resolve_base(str(mono_base))
    convert(adapter, "audiocraft", tmp_path / "ac", base=base)
    write_state(tmp_path / "ac" / "state_dict.safetensors", WRONG_STATES[words])
    with pytest.raises(UserError, match=words):
        convert(tmp_path / "ac", "transformers", tmp_path / "model", base=base)
    assert not (tmp_path / "model").exists()


def test_pickles_are_never_opened(tmp_path):
    (tmp_path / "state_dict.bin").write_bytes(b"\x80\x04anything")
    for source in (tmp_path, tmp_path / "state_dict.bin"):
        with pytest.raises(UserError, match="pickle") as caught:
            kind_of(source)
        assert "save_file" in caught.value.fix
    (tmp_path / "disguised.safetensors").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    with pytest.raises(UserError, match="pickle"):
        kind_of(tmp_path / "disguised.safetensors")


WRONG_KOHYA = {
    "no part of a MusicGen LoRA": {"lora_unet_down_blocks_0.lora_down.weight": torch.zeros(1, 1)},
    "no down and up": {"lora_unet_enc_to_dec_proj.lora_down.weight": torch.zeros(2, 12)},
    "is not one number": {
        "lora_unet_enc_to_dec_proj.lora_down.weight": torch.zeros(2, 12),
        "lora_unet_enc_to_dec_proj.lora_up.weight": torch.zeros(16, 2),
        "lora_unet_enc_to_dec_proj.alpha": torch.zeros(3),
    },
}


@pytest.mark.parametrize("words", WRONG_KOHYA)
def test_other_loras_are_refused(tmp_path, words):
    save_file(WRONG_KOHYA[words], tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=words):
        from_kohya(tmp_path / "x.safetensors")


def test_what_was_forced_is_told(adapter, tmp_path, capsys):
    other = write_debug_base(tmp_path / "other", seed=9)
    command = ["convert", str(adapter), "--base", str(other), "--to", "transformers", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert main([*command, "--force"]) == 0
    assert "forced: fingerprint of the weights" in capsys.readouterr().out


def test_command(mono_base, adapter, tmp_path, capsys):
    out = tmp_path / "ac"
    command = ["convert", f"{adapter}@0.5", "--to", "audiocraft", "--base", str(mono_base), "--out"]
    assert main([*command, str(out)]) == 0
    assert "exact" in capsys.readouterr().out
    assert main([*command, str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    shutil.copytree(out, tmp_path / "copy")
    words = ["convert", str(tmp_path / "copy"), "--to", "peft", "--rank", "1", "--base", str(mono_base)]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    assert "lost:" in capsys.readouterr().out
    for wrong, told in (
        (["convert", str(out), "--to", "transformers", "--out", str(tmp_path / "x")], "a base of its size"),
        (["convert", str(out), "--to", "peft", "--out", str(tmp_path / "x")], "with its base"),
        (["convert", f"{adapter}@0.5", "--to", "kohya", "--out", str(tmp_path / "x")], "strength"),
        (["convert", str(mono_base), "--to", "transformers", "--out", str(tmp_path / "x")], "already"),
        (["convert", str(tmp_path / "none"), "--to", "peft", "--out", str(tmp_path / "x")], "does not exist"),
    ):
        assert main(wrong) == 2
        assert told in " ".join(capsys.readouterr().err.split())


def test_headers_are_bounded(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(UserError, match="header"):
        kind_of(tmp_path / "x.safetensors")
