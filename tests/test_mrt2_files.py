"""Magenta RealTime 2 on disk: the official layout, read safely, named both ways, written again."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mrt2_fixtures import (
    CASES,
    OFFICIAL,
    case_inputs,
    conditions_of,
    magenta_lm,
    official_environment,
    write_case,
    write_request,
)
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from adapters.adapter_files import Adapter
from adapters.family.magenta_rt2 import spec as family
from adapters.family.magenta_rt2.lm import MagentaLM
from adapters.family.magenta_rt2.names import assemble, owners, pieces
from adapters.low_rank import LowRank
from adapters.merge import merge
from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.magenta_rt2 import layout
from data_prep.magenta_rt2.debug_base import cached_debug_mrt2, write_debug_mrt2
from data_prep.magenta_rt2.files import find_files, is_magenta_folder, load_magenta_codec
from data_prep.magenta_rt2.sizes import BASE, SMALL, spec_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_case("tiny", tmp_path_factory.mktemp("base") / "tiny")


def logits(folder: Path, **given) -> torch.Tensor:
    inputs = case_inputs("tiny")
    return magenta_lm(folder, **given)(inputs["codes"].long(), conditions_of(inputs["ids"]))


def moved(lm: torch.nn.Module, modules: str = "", by: float = 0.3) -> Adapter:
    """An adapter that changes every linear map of these names by a random matrix of rank 2."""
    draw, updates = torch.Generator().manual_seed(9), {}
    for name, module in lm.named_modules():
        if type(module) is torch.nn.Linear and re.fullmatch(modules or ".*", name) and name != "depth.reserved":
            a, b = (torch.randn(shape, generator=draw) for shape in ((2, module.in_features), (module.out_features, 2)))
            updates[name] = LowRank(a, b * by / module.in_features**0.5, alpha=2.0)
    return Adapter(updates)


def test_parameters_of_the_true_sizes():
    assert SMALL.n_parameters == 229_732_614
    assert BASE.n_parameters == 2_406_701_830
    for spec in (SMALL, BASE):
        assert spec_of(layout.lm_shapes(spec)) == spec


@pytest.mark.parametrize("name", list(CASES))
def test_names_both_ways(name, tmp_path):
    files = find_files(write_case(name, tmp_path))
    stored = {key: t for key, t in load_file(files.checkpoint).items() if key.startswith(layout.LM)}
    assert owners(files.spec).keys() == stored.keys()
    ours = {}
    for theirs, names in owners(files.spec).items():
        parts = pieces(theirs, stored[theirs], files.spec)
        assert torch.equal(assemble(theirs, parts, files.spec), stored[theirs])
        ours |= dict(zip(names, parts, strict=True))
    MagentaLM(files.spec).load_state_dict(ours)  # every name and shape, none missing, none left over


def test_groups_cover_the_linear_maps_without_overlap(folder):
    lm = magenta_lm(folder)
    linear = {name for name, module in lm.named_modules() if type(module) is torch.nn.Linear}
    matched = {group: {n for n in linear if re.fullmatch(pattern, n)} for group, pattern in family.GROUPS.items()}
    assert all(matched.values())
    assert sum(map(len, matched.values())) == len(set.union(*matched.values()))
    assert linear - set.union(*matched.values()) == {"depth.reserved"}


def test_merged_weights_are_written_and_read(folder, tmp_path):
    """Every linear map is changed, in the files and in memory."""
    lm, inputs = magenta_lm(folder), case_inputs("tiny")
    adapter = moved(lm)
    merge(resolve_base(str(folder)), [(adapter, 1.0)], tmp_path / "merged")
    for name, update in adapter.updates.items():
        weight = lm.get_submodule(name).weight
        assert isinstance(weight, torch.nn.Parameter)
        weight.data += update.b @ update.a
    expected = lm(inputs["codes"].long(), conditions_of(inputs["ids"]))
    assert_close(logits(tmp_path / "merged"), expected, rtol=1e-4, atol=1e-4)
    assert (expected - logits(folder)).abs().max() > 0.1
    files = find_files(tmp_path / "merged")
    assert files.spec == find_files(folder).spec
    assert load_magenta_codec(files).fingerprint == load_magenta_codec(find_files(folder)).fingerprint
    before, after = load_file(find_files(folder).checkpoint), load_file(files.checkpoint)
    assert before.keys() == after.keys()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {theirs for theirs, names in owners(files.spec).items() if _weights_of(adapter) & set(names)}


def _weights_of(adapter: Adapter) -> set[str]:
    return {f"{name}.weight" for name in adapter.updates}


def test_one_head_is_changed_alone(folder, tmp_path):
    adapter = moved(magenta_lm(folder), r"depth\.heads\.7")
    merge(resolve_base(str(folder)), [(adapter, 1.0)], tmp_path / "out")
    moves = (logits(tmp_path / "out") - logits(folder)).abs().amax((0, 2, 3)) > 1e-3
    assert moves.tolist() == [level == 7 for level in range(12)]


def test_half_precision_on_disk(folder, tmp_path):
    merge(resolve_base(str(folder)), [(moved(magenta_lm(folder), by=1e-6), 1.0)], tmp_path / "half", dtype="bf16")
    stored = load_file(find_files(tmp_path / "half").checkpoint)
    assert {t.dtype for key, t in stored.items() if key.startswith(layout.LM)} == {torch.bfloat16}
    assert {t.dtype for key, t in stored.items() if not key.startswith(layout.LM)} == {torch.float32}
    assert (logits(tmp_path / "half") - logits(folder)).abs().mean() < 0.05


@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.filterwarnings("ignore")
def test_fewer_bits(folder, kind):
    inputs = case_inputs("tiny")
    lm = magenta_lm(folder, kind)
    plain = [n for n, m in lm.named_modules() if type(m) is torch.nn.Linear and ".layers." in n]
    assert not plain and lm.get_submodule("temporal.layers.0.ffn.fc1").bias is not None
    got = lm(inputs["codes"].long(), conditions_of(inputs["ids"]))
    assert (got - logits(folder)).abs().mean() < {"int8": 0.05, "nf4": 0.5}[kind]


def test_a_folder_and_a_file_name_the_same_base(folder):
    files = find_files(folder)
    assert find_files(files.checkpoint).folder == folder
    assert is_magenta_folder(folder) and not is_magenta_folder(folder / "resources")


def test_the_debug_base_is_written_once(tmp_path):
    made = cached_debug_mrt2(tmp_path)
    assert cached_debug_mrt2(tmp_path) == made and [made] == list(tmp_path.iterdir())
    assert sum(file.stat().st_size for file in made.rglob("*") if file.is_file()) < 800_000


def test_several_checkpoints_must_be_told_apart(tmp_path):
    write_debug_mrt2(tmp_path)
    write_debug_mrt2(tmp_path, name="mrt2_other", codec=None)
    with pytest.raises(UserError, match="2 checkpoints"):
        find_files(tmp_path)
    assert find_files(tmp_path / "checkpoints" / "mrt2_other.safetensors").checkpoint.stem == "mrt2_other"


def test_no_checkpoint_here(tmp_path):
    with pytest.raises(UserError, match="no Magenta RealTime 2 checkpoint"):
        find_files(tmp_path)


def _drop(tensors):
    tensors.pop(f"{layout.TEMPORAL}1/cross_attention/attention/sink_key_embeddings")


def _add(tensors):
    tensors[f"{layout.LM}decoder/more"] = torch.zeros(1)


def _reshape(tensors):
    tensors[layout.CONTROLS] = tensors[layout.CONTROLS][:-1].clone()


@pytest.mark.parametrize(
    ("harm", "said"),
    [(_drop, "missing: .*sink_key"), (_add, "unexpected: .*more"), (_reshape, "expected \\[1536, 8\\]")],
)
def test_tensors_that_do_not_fit_are_named(harm, said, tmp_path):
    files = find_files(write_debug_mrt2(tmp_path, codec=None))
    tensors = load_file(files.checkpoint)
    harm(tensors)
    save_file(tensors, files.checkpoint)
    with pytest.raises(UserError, match=said):
        magenta_lm(tmp_path)


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    save_file({"weight": torch.zeros(2)}, tmp_path / "checkpoints" / "x.safetensors")
    with pytest.raises(UserError, match="no Magenta RealTime 2 language model"):
        _ = find_files(tmp_path).spec
    (tmp_path / "checkpoints" / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cut off"):
        find_files(tmp_path)


def test_a_window_that_is_no_number_is_refused(tmp_path):
    files = find_files(write_debug_mrt2(tmp_path, codec=None))
    save_file(load_file(files.checkpoint), files.checkpoint, metadata={"woodshed_window_frames": "-3"})
    with pytest.raises(UserError, match="no number of frames"):
        _ = find_files(tmp_path).spec


def test_the_family_is_told_without_torch():
    code = (
        "import sys, adapters.family.magenta_rt2.spec, data_prep.magenta_rt2.files; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def official_python(tmp_path_factory) -> Path:
    return official_environment(tmp_path_factory.mktemp("official") / "venv")


@pytest.mark.network
@pytest.mark.parametrize("name", list(CASES))
def test_the_official_package_gives_our_logits_of_what_we_wrote(name, official_python, tmp_path):
    """An adapter merged into the base, read by the official code: equal logits, codes and audio."""
    base = write_case(name, tmp_path / "base")
    merge(resolve_base(str(base)), [(moved(magenta_lm(base)), 1.0)], tmp_path / "out")
    spec, inputs = write_request(name, tmp_path)
    words = [official_python, OFFICIAL, "outputs", tmp_path / "out", spec, inputs, tmp_path / "out.safetensors"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs, given = load_file(tmp_path / "out.safetensors"), case_inputs(name)
    files = find_files(tmp_path / "out")
    ours = magenta_lm(tmp_path / "out")(given["codes"].long(), conditions_of(given["ids"]))
    assert_close(ours, theirs["logits"], rtol=1e-4, atol=1e-4)
    codec = load_magenta_codec(files)
    assert json.dumps(codec.encode([given["audio"]])[0].tolist()) == json.dumps(theirs["codec_codes"].tolist())
    assert_close(codec.decode(codec.encode([given["audio"]])[0]), theirs["decoded"], rtol=1e-4, atol=1e-5)
