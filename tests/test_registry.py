"""The list of adapters: everything that is there, broken ones with the reason, nothing that crashes it."""

import json
import shutil
import struct

import pytest
from adapter_fixtures import write_adapter

from adapters.metadata import HeldOut
from adapters.registry import find, glance, list_adapters
from data_prep.base_files import resolve_base
from data_prep.debug_base import write_debug_base
from finetune.cli import main


@pytest.fixture(scope="module")
def place(mono_base, tmp_path_factory):
    """Two runs, a fetched adapter, a hub cache, and things that are none."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "runs" / "blues").mkdir(parents=True)
    loss = HeldOut(adapter=2.1, base=2.4, n_clips=3)
    made = write_adapter(folder / "blues", mono_base, told={"held_out": loss, "license": "cc-by-nc-4.0"})
    made.rename(folder / "runs" / "blues" / "adapter")
    shutil.copytree(folder / "runs" / "blues" / "adapter", folder / "runs" / "broken" / "adapter")
    weights = folder / "runs" / "broken" / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    snapshot = folder / "hub" / "models--ada--punk" / "snapshots" / "0123abc"
    snapshot.parent.mkdir(parents=True)
    write_adapter(folder / "punk", mono_base, rank=3).rename(snapshot)
    (snapshot / "woodshed.json").unlink()
    for name in ("empty", "runs/blues/checkpoints/checkpoint-1"):
        (folder / name).mkdir(parents=True)
    return folder


def test_everything_is_found_once(place):
    assert [path.relative_to(place).as_posix() for path in find([place, place / "runs", place / "nowhere"])] == [
        "hub/models--ada--punk/snapshots/0123abc",
        "runs/blues/adapter",
        "runs/broken/adapter",
    ]


def test_what_is_told(place):
    punk, blues, broken = list_adapters([place])
    assert (blues.name, blues.base, blues.trigger) == ("blues", "mono", "in the style of blues")
    assert blues.loss == (2.4, 2.1) and blues.ranks == (2,) and blues.license == "cc-by-nc-4.0" and blues.fits is None
    assert blues.n_bytes == (blues.path / "adapter_model.safetensors").stat().st_size
    assert punk.name == "ada/punk" and punk.ranks == (3,) and not punk.problem
    assert "bytes of data" in broken.problem or "size" in broken.problem


def test_where_they_fit(place, mono_base, stereo_base, tmp_path):
    same = list_adapters([place], resolve_base(str(mono_base)))
    assert [listed.fits for listed in same] == [True, True, None]
    other = list_adapters([place], resolve_base(str(write_debug_base(tmp_path / "other", seed=4))))
    assert other[1].fits is False and "fingerprint" in other[1].misfit
    wide = list_adapters([place], resolve_base(str(write_debug_base(tmp_path / "wide", hidden=24))))
    assert [listed.fits for listed in wide] == [False, False, None]


def test_a_glance_reads_no_weights(place):
    adapter = glance(place / "runs" / "blues" / "adapter")
    assert all(update.a.is_meta for update in adapter.updates.values())


def test_one_that_cannot_be_read_does_not_stop_the_others(place, tmp_path):
    copy = shutil.copytree(place / "runs", tmp_path / "runs")
    (copy / "blues" / "adapter" / "adapter_config.json").write_bytes(b"\xff\xfe" + b"[" * 100_000)
    (copy / "blues" / "adapter" / "woodshed.json").write_text("{}")
    loop = copy / "loop"
    loop.symlink_to(copy)
    blues, broken = list_adapters([copy])
    assert blues.problem and broken.problem


def test_a_giant_of_no_bytes_does_not_stop_the_others(place, tmp_path):
    copy = shutil.copytree(place / "runs", tmp_path / "runs")
    weights = copy / "broken" / "adapter" / "adapter_model.safetensors"
    entry = {"dtype": "F32", "shape": [0, 2**52, 2**52], "data_offsets": [0, 0]}
    text = json.dumps({"base_model.model.enc_to_dec_proj.lora_A.weight": entry}).encode()
    weights.write_bytes(struct.pack("<Q", len(text)) + text)
    blues, broken = list_adapters([copy])
    assert not blues.problem and "not valid" in broken.problem


def test_command(place, mono_base, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["adapters", str(place), "--fits", str(mono_base)]) == 0
    shown = capsys.readouterr().out
    assert "2.400 → 2.100" in shown and "broken:" in shown and "ada/punk" in shown
    assert main(["adapters", str(place / "runs"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [line["name"] for line in told] == ["blues", "adapter"] and told[1]["problem"]
    assert told[0]["held_out"] == {"base": 2.4, "adapter": 2.1}
    assert main(["adapters", str(place / "empty")]) == 0
    assert "no adapters" in capsys.readouterr().out
    monkeypatch.chdir(place)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place / "hub"))
    assert main(["adapters", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
