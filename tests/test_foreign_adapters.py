"""Adapters as other people save them: every spelling that can be renamed plays the same; patterns cannot hang us."""

import json
import re
import time
from pathlib import Path

import pytest
import torch
from adapter_fixtures import FC, HEAD, TABLE, TEXT, Q, random_updates, write_adapter
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from adapters import adapter_files
from adapters.fit import check_fit
from adapters.peft_patterns import ModulePattern
from adapters.safe_files import read_tensors
from configs.errors import UserError
from data_prep.base_files import resolve_base

MODULES = (Q, FC, TABLE, HEAD)
PREFIX = "base_model.model."
SPELLINGS = {
    "default in the keys": lambda key: re.sub(
        r"(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector)(\.weight)?$", r"\1.default\2", key
    ),
    "an adapter's name in the keys": lambda key: re.sub(r"(lora_[AB])\.weight$", r"\1.my-blues.weight", key),
    "no prefix": lambda key: key.removeprefix(PREFIX),
    "prefix twice": lambda key: PREFIX + key,
    "the causal LM alone": lambda key: key.replace(f"{PREFIX}decoder.", PREFIX),
    "the causal LM, no prefix": lambda key: key.removeprefix(f"{PREFIX}decoder."),
    "its inner model": lambda key: key.replace(f"{PREFIX}decoder.model.", PREFIX),
    "its decoder": lambda key: key.replace(f"{PREFIX}decoder.model.decoder.", PREFIX),
    "compiled": lambda key: key.replace(PREFIX, f"{PREFIX}_orig_mod."),
    "data parallel": lambda key: f"module.{key}",
}


def respelt(folder: Path, spelling, **config) -> None:
    weights = folder / adapter_files.WEIGHTS
    save_file({spelling(key): tensor for key, tensor in load_file(weights).items()}, weights)
    path = folder / adapter_files.CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    (folder / "woodshed.json").unlink(missing_ok=True)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("dora", [False, True])
def test_every_spelling_is_the_same_adapter(mono_base: Path, tmp_path: Path, spelling: str, dora: bool) -> None:
    modules = (Q, FC) if dora else MODULES
    if spelling == "its inner model" or spelling == "its decoder":
        modules = (Q, FC) if dora else (Q, FC, TABLE)
    updates = random_updates(mono_base, modules, dora=dora)
    folder = write_adapter(tmp_path / "a", mono_base, updates)
    respelt(folder, SPELLINGS[spelling])
    loaded = adapter_files.load(folder)
    assert loaded.updates.keys() == updates.keys()
    assert all(torch.equal(loaded.updates[name].a, updates[name].a) for name in updates)
    assert not check_fit(loaded, resolve_base(str(mono_base)))


@pytest.mark.parametrize(
    "key", ["decoder.weight", "lora_A.weight", "base_model.model.x.lora_C.weight", "../x.lora_A.weight"]
)
def test_what_is_no_part_of_a_lora_is_refused(mono_base: Path, tmp_path: Path, key: str) -> None:
    folder = write_adapter(tmp_path / "a", mono_base)
    first = next(iter(load_file(folder / adapter_files.WEIGHTS)))
    respelt(folder, lambda name: key if name == first else name)
    with pytest.raises(UserError, match="no part of a LoRA"):
        adapter_files.load(folder)


@pytest.mark.parametrize(
    ("pattern", "hits"),
    [
        (".*q_proj", [Q]),
        (r".*\.self_attn\.q_proj", [Q]),
        ("layers.1.*q_proj", [Q]),
        (r"^decoder\.model\..*(q_proj|fc1)$", [Q, FC]),
        (r"layers\.[0-9]+\.(?:fc1|fc2)", [FC]),
        (r"layers\.\d+.*", [Q, FC]),
        (r".+\.embed_tokens\.\d", [TABLE]),
        ("q_proj", [Q]),
        ("proj", []),
        ("_proj", []),
        (r"^q_proj$", []),
        ("decoder.*", [Q, FC, TABLE, HEAD]),
    ],
)
def test_patterns_mean_what_they_mean_to_peft(mono_base: Path, tmp_path: Path, pattern: str, hits: list[str]) -> None:
    for module in MODULES:
        theirs = re.match(rf"(.*\.)?({pattern})$", module) is not None
        assert ModulePattern(pattern).matches(module) == theirs == (module in hits), module
    updates = random_updates(mono_base, MODULES)
    folder = write_adapter(tmp_path / "a", mono_base, updates)
    respelt(folder, str, alpha_pattern={pattern: 7.0})
    for name, update in adapter_files.load(folder).updates.items():
        assert update.alpha == (7.0 if name in hits else updates[name].alpha)


def test_patterns_are_for_the_names_of_the_model_that_was_trained(mono_base: Path, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", mono_base, random_updates(mono_base, (Q, FC)))
    saved = Q.removeprefix("decoder.")
    respelt(folder, SPELLINGS["the causal LM alone"], alpha_pattern={f"^{re.escape(saved)}$": 5.0})
    assert adapter_files.load(folder).updates[Q].alpha == 5.0


NAMES = st.lists(st.sampled_from(["layers", "0", "12", "fc1", "q_proj", "a", "aa"]), min_size=1, max_size=5).map(
    ".".join
)
PIECES = st.lists(
    st.sampled_from([".*", ".+", r"\.", ".", r"\d+", "layers", "q_proj", "a", "1", "(fc1|a)", "(a|aa)"]),
    min_size=1,
    max_size=6,
).map("".join)


@given(PIECES, NAMES, st.booleans())
def test_any_pattern_is_peft_s_or_refused(pattern: str, name: str, anchored: bool) -> None:
    pattern = f"^{pattern}$" if anchored else pattern
    try:
        ours = ModulePattern(pattern).matches(name)
    except ValueError:
        return
    assert ours == (re.match(rf"(.*\.)?({pattern})$", name) is not None)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a|a)*",
        "a{1,9999}",
        "(?=a)",
        "[a-z]*",
        "x" * 301,
        r"\d+" * 4,
        "(a|aa)" * 4,
        "(a|b.*)",
        "a|b",
        "",
        "(",
    ],
)
def test_strangers_regexes_are_refused(pattern: str) -> None:
    if pattern == "":
        assert not ModulePattern("").matches("a")
        return
    with pytest.raises(ValueError):
        ModulePattern(pattern)


@pytest.mark.parametrize("pattern", [".*a" * 60 + "b", r"\d+\d+\d+x", "(a|aa)(a|aa)(a|aa)x", ".*" * 100 + "x"])
def test_no_pattern_takes_long(pattern: str) -> None:
    begun = time.process_time()
    for name in ("a" * 500, "1" * 500, ".".join("a" * 250)):
        ModulePattern(pattern).matches(name)
    assert time.process_time() - begun < 1.0


def test_all_linear(mono_base: Path, tmp_path: Path) -> None:
    """The text encoder's parts stay zero where it was not trained, and are dropped then; else they are named."""
    other = "text_encoder.encoder.block.0.layer.0.SelfAttention.q"
    updates = random_updates(mono_base, (Q, other))
    zero = updates[other].__class__(updates[other].a, torch.zeros_like(updates[other].b), updates[other].alpha)
    folder = write_adapter(tmp_path / "idle", mono_base, {Q: updates[Q], other: zero})
    assert adapter_files.load(folder).updates.keys() == {Q}
    trained = write_adapter(tmp_path / "trained", mono_base, updates)
    with pytest.raises(UserError) as caught:
        check_fit(adapter_files.load(trained), resolve_base(str(mono_base)))
    assert "all-linear" in caught.value.fix and "1 of 2 modules" in caught.value.fix
    assert "give that as --base" not in caught.value.fix
    assert TEXT not in caught.value.what


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_a_header_whose_length_looks_like_a_pickle(tmp_path: Path, length: int) -> None:
    tensors = {"base_model.model.a.lora_A.weight": torch.ones(2, 2)}
    start = b""
    for padding in range(length):
        save_file(tensors, tmp_path / "x.safetensors", metadata={"note": "x" * padding})
        start = (tmp_path / "x.safetensors").read_bytes()[:8]
        if int.from_bytes(start, "little") == length:
            break
    assert start.startswith(b"\x80") and read_tensors(tmp_path / "x.safetensors")[0].keys() == tensors.keys()
    (tmp_path / "y.safetensors").write_bytes(start + b"\x95" + bytes(3000))
    with pytest.raises(UserError, match="pickle"):
        read_tensors(tmp_path / "y.safetensors")
