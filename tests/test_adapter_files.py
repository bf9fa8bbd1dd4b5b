"""Adapter folders: what we write loads everywhere, what others wrote loads here, what is wrong is refused by name."""

import json
import re
import shutil
import stat
import struct
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import MusicgenForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from adapters import adapter_files, lora, metadata, peft_layout, safe_files
from adapters.card import card
from adapters.conditions import Conditions
from adapters.family.load import load_lm
from adapters.fit import describe_base, describe_codec
from adapters.low_rank import LowRank
from configs.errors import UserError
from configs.train import LoraSettings
from data_prep.base_files import resolve_base

# peft 0.21 asks transformers 5.23 by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

KINDS = {
    "plain": {},
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "pissa": {"init": "pissa"},
    "pissa_rslora": {"init": "olora", "rslora": True},
    "few": {"targets": ["q", "text_projection"], "dropout": 0.1},
}


def batch(lm):
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randint(0, lm.card + 1, (2, lm.n_codebooks, 6), generator=generator)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    return inputs, Conditions.of_text(torch.randn(2, 3, lm.spec.text_width, generator=generator), mask)


def full_logits(model, inputs, conditions):
    with torch.no_grad():
        out = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=conditions["text"].values),
            attention_mask=conditions["text"].mask.long(),
            decoder_input_ids=inputs.reshape(-1, inputs.shape[2]),
        )
    return out.logits.view(*inputs.shape, -1)


def trained(files, **changes):
    """A model with an adapter whose every number has moved."""
    lm = load_lm(files)
    adapter = lora.attach(lm, LoraSettings(**{"rank": 4, "alpha": 6.0, **changes}))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in adapter.parameters().values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return lm, adapter


def describe(files, updates, **more) -> metadata.Woodshed:
    base = describe_base(files, updates)
    return metadata.Woodshed(name="mine", base=base, codec=describe_codec(files), trigger="in my style", **more)


@pytest.fixture(scope="module")
def written(mono_base, tmp_path_factory) -> Path:
    files = resolve_base(str(mono_base))
    _, adapter = trained(files)
    updates = adapter.updates()
    return adapter_files.save(tmp_path_factory.mktemp("adapters") / "mine", updates, describe(files, updates))


@pytest.fixture
def broken(written, tmp_path) -> Path:
    return shutil.copytree(written, tmp_path / "broken")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(folder: Path, change) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(("kind", "base"), [("plain", "stereo_base"), *((kind, "mono_base") for kind in KINDS)])
def test_plain_peft_on_the_full_model_gives_our_logits(kind, base, request, tmp_path):
    folder = request.getfixturevalue(base)
    files = resolve_base(str(folder))
    lm, adapter = trained(files, **KINDS[kind])
    inputs, conditions = batch(lm)
    ours = lm(inputs, conditions)
    saved = adapter_files.save(tmp_path / "mine", adapter.updates(), describe(files, adapter.updates()), dropout=0.1)
    full = MusicgenForConditionalGeneration.from_pretrained(folder)
    untuned = full_logits(full.eval(), inputs, conditions)
    model = PeftModel.from_pretrained(full, str(saved)).eval()
    assert_close(full_logits(model, inputs, conditions), ours, rtol=1e-4, atol=1e-4)
    assert (ours - untuned).abs().max() > 0.05
    fresh = load_lm(files)
    lora.attach_updates(fresh, adapter_files.load(saved).updates)
    assert_close(fresh(inputs, conditions), ours, rtol=1e-4, atol=1e-4)


def test_saved_and_loaded_numbers_are_exactly_equal(mono_base, tmp_path):
    files = resolve_base(str(mono_base))
    _, adapter = trained(files, rslora=True)
    updates = adapter.updates()
    loaded = adapter_files.load(adapter_files.save(tmp_path / "a", updates, describe(files, updates))).updates
    assert loaded.keys() == updates.keys()
    for name, update in updates.items():
        assert_close(loaded[name].a, update.a, rtol=0, atol=0)
        assert_close(loaded[name].b, update.b, rtol=0, atol=0)
        assert loaded[name].scale == update.scale


def test_mixed_ranks_and_alphas_survive(mono_base, tmp_path):
    files = resolve_base(str(mono_base))
    torch.manual_seed(0)
    names = [f"decoder.model.decoder.layers.{n}.self_attn.q_proj" for n in (0, 1)] + ["decoder.lm_heads.2"]
    shapes = [(16, 16), (16, 16), (64, 16)]
    updates = {
        name: LowRank(torch.randn(rank, shape[1]), torch.randn(shape[0], rank), alpha)
        for name, shape, rank, alpha in zip(names, shapes, (2, 3, 2), (4.0, 1.5, 8.0), strict=True)
    }
    saved = adapter_files.save(tmp_path / "a", updates, describe(files, updates))
    for name, update in adapter_files.load(saved).updates.items():
        assert_close(update.delta(), updates[name].delta())
    lm = load_lm(files)
    inputs, conditions = batch(lm)
    lora.attach_updates(lm, updates)
    model = PeftModel.from_pretrained(MusicgenForConditionalGeneration.from_pretrained(mono_base), str(saved)).eval()
    assert_close(full_logits(model, inputs, conditions), lm(inputs, conditions), rtol=1e-4, atol=1e-4)


def test_adapters_of_musicgen_dreamboothing_load(mono_base, tmp_path):
    """Its target list: projections by leaf name, heads and embeddings (train.py of ylacombe/musicgen-dreamboothing)."""
    leaves = ["enc_to_dec_proj", "audio_enc_to_dec_proj", "k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2"]
    targets = leaves + [f"lm_heads.{k}" for k in range(4)] + [f"embed_tokens.{k}" for k in range(4)]
    config = LoraConfig(r=3, lora_alpha=5, target_modules=targets, lora_dropout=0.05, bias="none")
    torch.manual_seed(1)
    model = get_peft_model(MusicgenForConditionalGeneration.from_pretrained(mono_base), config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter += 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(str(tmp_path / "theirs"), save_embedding_layers=False)
    adapter = adapter_files.load(tmp_path / "theirs")
    assert adapter.woodshed is None
    assert sum(update.embedding for update in adapter.updates.values()) == 4
    lm = load_lm(resolve_base(str(mono_base)))
    inputs, conditions = batch(lm)
    lora.attach_updates(lm, adapter.updates)
    assert_close(lm(inputs, conditions), full_logits(model, inputs, conditions), rtol=1e-4, atol=1e-4)


def test_folder_says_nothing_of_this_machine(written, mono_base):
    for path in written.iterdir():
        content = path.read_bytes()
        for secret in (str(mono_base), str(mono_base.parent), f"{Path.home()}/"):
            assert secret.encode() not in content, path
    config = json.loads((written / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "mono"
    assert config["lora_alpha"] == 6 and config["r"] == 4
    pattern = config["target_modules"]
    assert pattern.startswith("^") and pattern.endswith("$")
    names = [name for name, _ in MusicgenForConditionalGeneration.from_pretrained(mono_base).named_modules()]
    assert {name for name in names if re.fullmatch(pattern, name)} == adapter_files.load(written).updates.keys()


def test_others_may_read_all_files_that_one_of_them_may(written):
    modes = {path.name: stat.filemode(path.stat().st_mode) for path in written.iterdir()}
    assert len(set(modes.values())) == 1, modes


def test_header_holds_the_description_in_short(written):
    header = adapter_files.load(written).header
    assert header["modelspec.title"] == "mine"
    assert header["woodshed.base"] == "mono"
    assert header["modelspec.trigger_phrase"] == "in my style"
    assert all(isinstance(value, str) for value in header.values())


def test_description_follows_the_published_schema(written):
    published = json.loads(metadata.SCHEMA_FILE.read_text())
    assert published == metadata.schema()
    told = json.loads((written / "woodshed.json").read_text())
    jsonschema.validate(told, published)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**told, "surprise": 1}, published)


def test_card_has_the_front_matter_the_hub_reads(mono_base):
    files = resolve_base(str(mono_base))
    update = LowRank(torch.zeros(1, 16), torch.zeros(16, 1), 1.0)
    told = describe(files, {"enc_to_dec_proj": update}, license="cc-by-nc-4.0")
    base = told.base.model_copy(update={"id": "facebook/musicgen-small", "revision": "abc"})
    evil = 'x"`\n---\n<script>alert(1)</script>](http://evil) | # '
    told = told.model_copy(update={"base": base, "name": evil, "trigger": evil, "prompts": [evil]})
    text = card(told, {"enc_to_dec_proj": update}, {evil: "a b.wav"})
    _, front, body = re.split(r"^---$", text, maxsplit=2, flags=re.MULTILINE)
    fields = yaml.safe_load(front)
    assert fields["base_model"] == "facebook/musicgen-small"
    assert fields["base_model_relation"] == "adapter" and fields["library_name"] == "peft"
    assert fields["license"] == "cc-by-nc-4.0" and fields["pipeline_tag"] == "text-to-audio"
    assert fields["instance_prompt"] == " ".join(evil.split())
    assert fields["widget"] == [{"text": " ".join(evil.split()), "output": {"url": "a b.wav"}}]
    assert "base_model:adapter:facebook/musicgen-small" in fields["tags"]
    assert "CC-BY-NC 4.0 (no commercial use)" in body
    prose = re.sub(r"```.*?```", "", body, flags=re.DOTALL)
    assert "<script>" not in prose and "](http://evil" not in prose and "\n---" not in prose
    code = re.search(r"```python\n(.*?)\n```", body, flags=re.DOTALL)
    assert code
    compile(code.group(1), "card", "exec")
    assert 'revision="abc"' in code.group(1)
    assert 'AutoProcessor.from_pretrained(base, revision="abc", trust_remote_code=False)' in code.group(1)


def test_code_on_the_card_runs_as_it_stands(written, mono_base, tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)\n```", (written / "README.md").read_text(), flags=re.DOTALL)
    assert code
    monkeypatch.chdir(tmp_path)
    shutil.copytree(mono_base, "mono")
    shutil.copytree(written, "path/to/this/adapter")
    exec(code.group(1).replace("max_new_tokens=500", "max_new_tokens=8"), {"__name__": "card"})
    assert Path("music.wav").stat().st_size > 1000


def test_a_taken_folder_is_refused_and_overwriting_is_whole(written, mono_base, tmp_path):
    updates = adapter_files.load(written).updates
    told = describe(resolve_base(str(mono_base)), updates)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    with pytest.raises(UserError, match="something else"):
        adapter_files.save(tmp_path / "notes", updates, told, overwrite=True)
    adapter_files.save(tmp_path / "a", updates, told)
    with pytest.raises(UserError, match="taken"):
        adapter_files.save(tmp_path / "a", updates, told)
    adapter_files.save(tmp_path / "a", updates, told, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "notes"]
    assert len(list((tmp_path / "a").iterdir())) == 4


def test_half_precision_file_stays_close(written, mono_base, tmp_path):
    exact = adapter_files.load(written).updates
    told = describe(resolve_base(str(mono_base)), exact)
    half = adapter_files.load(adapter_files.save(tmp_path / "half", exact, told, dtype="bf16")).updates
    for name, update in exact.items():
        assert half[name].a.dtype == torch.bfloat16
        assert_close(half[name].delta(), update.delta(), rtol=0.05, atol=0.01)


A_KEY = f"{peft_layout.PREFIX}enc_to_dec_proj.lora_A.weight"


def poison(tensors):
    tensors[A_KEY][0, 0] = float("nan")


REFUSALS = {
    "no such folder": (lambda f: shutil.rmtree(f), "no adapter folder"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "adapter_model.safetensors is missing"),
    "NaN": (lambda f: edit_tensors(f, poison), r"NaN or infinity.*enc_to_dec_proj"),
    "missing part": (lambda f: edit_tensors(f, lambda t: t.pop(A_KEY)), "enc_to_dec_proj has no A"),
    "extra key": (lambda f: edit_tensors(f, lambda t: t.update(surprise=torch.zeros(1))), "surprise"),
    "wrong rank": (lambda f: edit_config(f, r=5), "settings say rank 5"),
    "wrong shape": (lambda f: edit_tensors(f, lambda t: t.update({A_KEY: torch.zeros(4, 2, 2)})), "enc_to_dec_proj"),
    "DoRA claimed": (lambda f: edit_config(f, use_dora=True), "disagree about DoRA"),
    "other method": (lambda f: edit_config(f, peft_type="IA3"), "kind is IA3"),
    "unconverted start": (lambda f: edit_config(f, init_lora_weights="pissa"), "pissa had changed"),
    "unknown setting": (lambda f: edit_config(f, use_magic=True), "use_magic"),
    "whole modules": (lambda f: edit_config(f, modules_to_save=["lm_heads"]), "modules_to_save"),
    "alpha no number": (lambda f: edit_config(f, lora_alpha="6"), "alpha 6"),
    "evil pattern": (lambda f: edit_config(f, rank_pattern={"(a+)+$": 4}), "more than a module's name"),
    "not JSON": (lambda f: (f / "adapter_config.json").write_text("{"), "not valid JSON"),
    "key twice": (lambda f: (f / "adapter_config.json").write_text('{"r": 1, "r": 2}'), "given twice"),
    "deep JSON": (lambda f: (f / "adapter_config.json").write_text("[" * 100_000), "not valid JSON"),
    "huge JSON": (lambda f: (f / "woodshed.json").write_text(" " * (5 * 2**20)), "larger than 4 MB"),
    "future": (lambda f: (f / "woodshed.json").write_text('{"schema_version": 4}'), "format version 4"),
    "unknown field": (lambda f: (f / "woodshed.json").write_text('{"schema_version": 1, "x": 1}'), "does not describe"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_wrong_is_refused_by_name(broken, case):
    change, message = REFUSALS[case]
    change(broken)
    with pytest.raises(UserError) as caught:
        adapter_files.load(broken)
    assert re.search(message, str(caught.value)), str(caught.value)


def test_unknown_settings_pass_by_force_only(broken):
    edit_config(broken, use_magic=True)
    assert adapter_files.load(broken, force=True).updates


@pytest.mark.parametrize("start", [b"PK\x03\x04rest of a zip", b"\x80\x02}q\x00."])
def test_pickles_are_refused_by_name_and_by_content(broken, start):
    weights = broken / "adapter_model.safetensors"
    weights.write_bytes(start)
    with pytest.raises(UserError, match="is a pickle"):
        adapter_files.load(broken)
    weights.rename(broken / "adapter_model.bin")
    with pytest.raises(UserError, match="is a pickle"):
        adapter_files.load(broken)


def header_of(**entries):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01",
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        header_of(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}) + b"\0" * 4,
        header_of(a={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}) + b"\0" * 8,
        header_of(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}) + b"\0" * 4,
        header_of(a={"dtype": "F32", "shape": [0, 2**52, 2**52], "data_offsets": [0, 0]}),
        header_of(a={"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}) + b"\0" * 4,
        header_of(a={"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}) + b"\0" * 8,
        header_of(a={"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}) + b"\0" * 8,
        header_of(a=1),
        header_of(__metadata__={"x": 1}),
    ],
)
def test_headers_that_lie_are_refused(broken, content):
    (broken / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(UserError):
        safe_files.check_header(broken / "adapter_model.safetensors")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_files_never_crash(written, data):
    """Any byte of any file changed, cut or added: loaded as an adapter or refused with a UserError, nothing else."""
    names = ["adapter_model.safetensors", "adapter_config.json", "woodshed.json"]
    name = data.draw(st.sampled_from(names))
    content = bytearray((written / name).read_bytes())
    limit = min(len(content), 3000)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, limit - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    folder = written.parent / "mutated"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(written, folder)
    (folder / name).write_bytes(content)
    try:
        adapter = adapter_files.load(folder)
    except UserError as error:
        assert len(str(error)) < 2000
    else:
        assert all(torch.isfinite(update.a).all() for update in adapter.updates.values())


def test_header_check_reads_no_tensor(written):
    entries, flat = safe_files.check_header(written / "adapter_model.safetensors")
    assert A_KEY in entries and flat["format"] == "pt"
