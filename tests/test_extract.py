"""An adapter taken out of a tuned model: exact where the difference is low-rank, and what is lost is told."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from adapters import lora
from adapters.conditions import Conditions
from adapters.extract import extract
from adapters.family.load import load_lm
from adapters.low_rank import LowRank
from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.debug_base import write_debug_base

Q, FC, TEXT = (
    "decoder.model.decoder.layers.1.self_attn.q_proj",
    "decoder.model.decoder.layers.0.fc1",
    "enc_to_dec_proj",
)
TABLE, HEAD = "decoder.model.decoder.embed_tokens.2", "decoder.lm_heads.1"
NORM = "decoder.model.decoder.layer_norm.weight"


def random_updates(base, rank=2, scale=0.05):
    torch.manual_seed(4)
    weights = load_file(base / "model.safetensors")
    updates = {}
    for module in (Q, FC, TEXT, TABLE, HEAD):
        rows, columns = weights[f"{module}.weight"].shape
        embedding = module == TABLE
        shape = (columns, rows) if embedding else (rows, columns)
        a, b = torch.randn(rank, shape[1]), scale * torch.randn(shape[0], rank)
        updates[module] = LowRank(a, b, float(rank), embedding=embedding)
    return updates


def tuned_copy(base, folder, change):
    shutil.copytree(base, folder)
    tensors = load_file(base / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return resolve_base(str(folder))


@pytest.fixture(scope="module")
def updates(mono_base):
    return random_updates(mono_base)


@pytest.fixture(scope="module")
def tuned(mono_base, updates, tmp_path_factory):
    def merge(tensors):
        for module, update in updates.items():
            tensors[f"{module}.weight"] += update.delta()

    return tuned_copy(mono_base, tmp_path_factory.mktemp("tuned") / "tuned", merge)


def logits(files, updates=None):
    lm = load_lm(files)
    if updates:
        lora.attach_updates(lm, updates)
    torch.manual_seed(0)
    inputs = torch.randint(0, lm.card, (2, lm.n_codebooks, 5))
    states = torch.randn(2, 3, lm.spec.text_width)
    with torch.no_grad():
        return lm(inputs, Conditions.of_text(states, torch.ones(2, 3, dtype=torch.bool)))


def test_what_was_merged_comes_out_again(mono_base, updates, tuned):
    base = resolve_base(str(mono_base))
    found = extract(base, tuned, rank=2)
    assert found.updates.keys() == updates.keys() and not found.left_out
    for module, update in found.updates.items():
        assert update.rank == 2 and update.embedding == (module == TABLE)
        assert_close(update.delta(), updates[module].delta(), rtol=1e-4, atol=1e-5)
    assert found.error < 1e-5
    assert_close(logits(base, found.updates), logits(tuned), rtol=1e-4, atol=1e-4)
    assert float((logits(base) - logits(tuned)).abs().max()) > 0.01


def test_too_low_a_rank_tells_what_it_costs(mono_base, updates, tuned):
    found = extract(resolve_base(str(mono_base)), tuned, rank=1)
    missing = [float(torch.linalg.svdvals(update.delta())[1:].norm()) for update in updates.values()]
    whole = [float(update.delta().norm()) for update in updates.values()]
    assert found.error == pytest.approx(math.hypot(*missing) / math.hypot(*whole), rel=1e-3)
    assert found.error > 0.05


def test_an_energy_keeps_its_share(mono_base, tuned):
    found = extract(resolve_base(str(mono_base)), tuned, energy=0.9)
    assert all(part.energy >= 0.9 for part in found.modules.values())
    assert {part.update.rank for part in found.modules.values()} <= {1, 2}


def test_shards_and_half_precision(mono_base, updates, tmp_path):
    sharded = tmp_path / "sharded"
    shutil.copytree(mono_base, sharded)
    tensors = {
        n: t.half() if t.is_floating_point() else t for n, t in load_file(mono_base / "model.safetensors").items()
    }
    tensors[f"{Q}.weight"] += updates[Q].delta().half()
    names = sorted(tensors)
    halves = [names[: len(names) // 2], names[len(names) // 2 :]]
    weight_map = {}
    for number, half in enumerate(halves):
        save_file({n: tensors[n] for n in half}, sharded / f"model-{number}.safetensors")
        weight_map |= dict.fromkeys(half, f"model-{number}.safetensors")
    (sharded / "model.safetensors").unlink()
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    half_base = tuned_copy(mono_base, tmp_path / "half", lambda t: t.update({n: v.half() for n, v in t.items()}))
    found = extract(half_base, resolve_base(str(sharded)), rank=2)
    assert found.updates.keys() == {Q}
    assert_close(found.updates[Q].delta(), updates[Q].delta(), rtol=0.05, atol=5e-3)


def test_what_an_adapter_cannot_hold_is_refused_or_told(mono_base, updates, tmp_path):
    def change(tensors):
        tensors[f"{Q}.weight"] += updates[Q].delta()
        tensors[NORM] += 0.5

    base, tuned = resolve_base(str(mono_base)), tuned_copy(mono_base, tmp_path / "normed", change)
    with pytest.raises(UserError, match="layer_norm"):
        extract(base, tuned, rank=2)
    found = extract(base, tuned, rank=2, leave_out=True)
    assert found.left_out == {NORM: pytest.approx(0.5 * 4)}
    assert found.error == pytest.approx(2 / math.hypot(2, float(updates[Q].delta().norm())), rel=1e-4)


def test_refusals(mono_base, stereo_base, tmp_path):
    base = resolve_base(str(mono_base))
    with pytest.raises(UserError, match="Nothing to extract"):
        extract(base, base, rank=2)
    with pytest.raises(UserError, match="two different models"):
        extract(base, resolve_base(str(stereo_base)), rank=2)
    wider = resolve_base(str(write_debug_base(tmp_path / "wider", hidden=24)))
    with pytest.raises(UserError, match="in the base and"):
        extract(base, wider, rank=2)
    broken = tuned_copy(mono_base, tmp_path / "nan", lambda t: t[f"{Q}.weight"].fill_(math.nan))
    with pytest.raises(UserError, match="no numbers"):
        extract(base, broken, rank=2)
