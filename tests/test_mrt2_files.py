"""Magenta RealTime 2 on disk: the official layout, read safely, named both ways, written again."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mrt2_fixtures import CASES, OFFICIAL, case_inputs, conditions_of, official_environment, write_case, write_request
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from adapters.family.magenta_rt2 import spec as family
from adapters.family.magenta_rt2.export import write_changed, write_weights
from adapters.family.magenta_rt2.lm import MagentaLM
from adapters.family.magenta_rt2.load import load_magenta_lm
from adapters.family.magenta_rt2.names import to_official, to_ours
from configs.errors import UserError
from data_prep.magenta_rt2 import layout
from data_prep.magenta_rt2.debug_base import cached_debug_mrt2, write_debug_mrt2
from data_prep.magenta_rt2.files import find_files, is_magenta_folder, load_magenta_codec
from data_prep.magenta_rt2.sizes import BASE, SMALL, spec_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_case("tiny", tmp_path_factory.mktemp("base") / "tiny")


def logits(folder: Path, **given) -> torch.Tensor:
    inputs = case_inputs("tiny")
    lm = load_magenta_lm(find_files(folder), **given)
    return lm(inputs["codes"].long(), conditions_of(inputs["ids"]))


def test_parameters_of_the_true_sizes():
    assert SMALL.n_parameters == 229_732_614
    assert BASE.n_parameters == 2_406_701_830
    for spec in (SMALL, BASE):
        assert spec_of(layout.lm_shapes(spec)) == spec


@pytest.mark.parametrize("name", list(CASES))
def test_names_both_ways(name, tmp_path):
    files = find_files(write_case(name, tmp_path))
    stored = {key: t for key, t in load_file(files.checkpoint).items() if key.startswith(layout.LM)}
    ours = dict(to_ours(stored, files.spec))
    MagentaLM(files.spec).load_state_dict(ours)  # every name and shape, none missing, none left over
    back = dict(to_official(ours, files.spec))
    assert back.keys() == stored.keys()
    assert all(torch.equal(back[key], stored[key]) for key in stored)


def test_groups_cover_the_linear_maps_without_overlap(folder):
    lm = load_magenta_lm(find_files(folder))
    linear = {name for name, module in lm.named_modules() if type(module) is torch.nn.Linear}
    matched = {group: {n for n in linear if re.fullmatch(pattern, n)} for group, pattern in family.GROUPS.items()}
    assert all(matched.values())
    assert sum(map(len, matched.values())) == len(set.union(*matched.values()))
    assert linear - set.union(*matched.values()) == {"depth.reserved"}


def test_changed_weights_are_written_and_read(folder, tmp_path):
    out = tmp_path / "merged"
    changed = write_changed(find_files(folder), out, lambda name, weight: weight + 0.01 * torch.ones_like(weight))
    before, after = load_file(find_files(folder).checkpoint), load_file(changed)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert_close(after[name], tensor + (0.01 if name.startswith(layout.LM) else 0))
    files = find_files(out)
    assert files.spec == find_files(folder).spec
    assert (logits(out) - logits(folder)).abs().max() > 1e-3
    assert load_magenta_codec(files).fingerprint == load_magenta_codec(find_files(folder)).fingerprint
    assert not list(tmp_path.glob(".*"))


def test_one_head_is_changed_alone(folder, tmp_path):
    lm = load_magenta_lm(find_files(folder))
    weights = {"depth.heads.7.bias": lm.state_dict()["depth.heads.7.bias"] + 1}
    write_weights(find_files(folder), tmp_path / "out", weights)
    moved = (logits(tmp_path / "out") - logits(folder)).abs().amax((0, 2, 3)) > 1e-3
    assert moved.tolist() == [level == 7 for level in range(12)]
    with pytest.raises(KeyError, match="nonsense"):
        write_weights(find_files(folder), tmp_path / "other", {"nonsense": torch.zeros(1)})


def test_half_precision_on_disk(folder, tmp_path):
    out = write_changed(find_files(folder), tmp_path / "half", lambda name, weight: weight, dtype=torch.bfloat16)
    stored = load_file(out)
    assert {t.dtype for key, t in stored.items() if key.startswith(layout.LM)} == {torch.bfloat16}
    assert {t.dtype for key, t in stored.items() if not key.startswith(layout.LM)} == {torch.float32}
    assert (logits(tmp_path / "half") - logits(folder)).abs().mean() < 0.05


def test_a_folder_that_is_there_is_left_alone(folder):
    with pytest.raises(UserError, match="there already"):
        write_changed(find_files(folder), folder, lambda name, weight: weight)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.filterwarnings("ignore")
def test_fewer_bits(folder, kind):
    inputs = case_inputs("tiny")
    lm = load_magenta_lm(find_files(folder), quantize=kind)
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
        load_magenta_lm(find_files(tmp_path))


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
    """Weights of our own drawing, through our exporter, into the official code: equal logits, codes and audio."""
    base = find_files(write_case(name, tmp_path / "base"))
    draw = torch.Generator().manual_seed(9)
    write_changed(base, tmp_path / "out", lambda _, w: w + 0.1 * w.std() * torch.randn(w.shape, generator=draw))
    spec, inputs = write_request(name, tmp_path)
    words = [official_python, OFFICIAL, "outputs", tmp_path / "out", spec, inputs, tmp_path / "out.safetensors"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs, given = load_file(tmp_path / "out.safetensors"), case_inputs(name)
    files = find_files(tmp_path / "out")
    ours = load_magenta_lm(files)(given["codes"].long(), conditions_of(given["ids"]))
    assert_close(ours, theirs["logits"], rtol=1e-4, atol=1e-4)
    codec = load_magenta_codec(files)
    assert json.dumps(codec.encode([given["audio"]])[0].tolist()) == json.dumps(theirs["codec_codes"].tolist())
    assert_close(codec.decode(codec.encode([given["audio"]])[0]), theirs["decoded"], rtol=1e-4, atol=1e-5)
