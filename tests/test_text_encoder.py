"""Text states equal the full model's text encoder, one by one or together, and carry no padding."""

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import data_prep
from data_prep.base_files import resolve_base
from data_prep.text_encoder import SHARED, TIED, TextEncoder

CAPTIONS = ["rock", "fast rock, electric guitar", "a slow jazz piano", "", "drums", "Straße 東京 ♫", "guitar"]


@pytest.fixture(scope="module")
def encoder(mono_base):
    return TextEncoder.load(resolve_base(str(mono_base)))


def test_together_equals_one_by_one(encoder):
    for together, caption in zip(encoder.encode(CAPTIONS), CAPTIONS, strict=True):
        (alone,) = encoder.encode([caption])
        torch.testing.assert_close(together, alone)


def test_equals_the_full_models_padded_and_masked_states(encoder, mono_base):
    from transformers import AutoProcessor, MusicgenForConditionalGeneration

    model: Any = MusicgenForConditionalGeneration.from_pretrained(mono_base)
    model.eval()
    batch = AutoProcessor.from_pretrained(mono_base)(text=CAPTIONS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model.text_encoder(**batch).last_hidden_state
    for states, padded, mask in zip(encoder.encode(CAPTIONS), expected, batch["attention_mask"], strict=True):
        assert states.shape == (int(mask.sum()), encoder.width)
        torch.testing.assert_close(states, padded[mask.bool()])


def test_a_long_caption_keeps_its_beginning_and_is_flagged(encoder):
    long = "guitar " * 2000
    assert encoder.is_too_long(long) and not encoder.is_too_long("guitar")
    (states,) = encoder.encode([long])
    assert states.shape[0] == encoder.max_tokens == 512


@pytest.mark.parametrize("kept", [{SHARED}, {TIED}, {SHARED, TIED}])
def test_every_way_to_store_the_tied_table_loads(encoder, mono_base, tmp_path, kept):
    tensors = load_file(mono_base / "model.safetensors")
    table = tensors.pop(f"text_encoder.{SHARED}")
    tensors |= {f"text_encoder.{name}": table.clone() for name in kept}
    folder = tmp_path / "tied"
    folder.mkdir()
    for file in mono_base.glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    save_file(tensors, folder / "model.safetensors")
    other = TextEncoder.load(resolve_base(str(folder)))
    assert other.fingerprint == encoder.fingerprint
    torch.testing.assert_close(other.encode(CAPTIONS), encoder.encode(CAPTIONS))


def test_every_loading_call_refuses_code_of_the_checkpoint():
    calls = {}
    product = Path(data_prep.__file__).parent.parent
    for path in [p for name in ("data_prep", "adapters", "finetune") for p in (product / name).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "from_pretrained":
                said = {word.arg: ast.unparse(word.value) for word in node.keywords}
                calls[f"{path.name}:{node.lineno}"] = said.get("trust_remote_code")
    assert len(calls) >= 4 and set(calls.values()) == {"False"}, calls
