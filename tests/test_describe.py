"""What inspect shows: true numbers, everything the adapter says, and none of a stranger's markup obeyed."""

import json

import pytest
import torch

import adapters
from adapters.adapter_files import save
from adapters.describe import describe
from adapters.fit import describe_base, describe_codec
from adapters.low_rank import LowRank
from adapters.metadata import HeldOut, Woodshed
from data_prep.base_files import resolve_base
from finetune import cli
from finetune.terminal import harmless

EVIL = "[bold]x[/] \x1b[31mred\x1b]0;title\x07 \u202e"
Q = "decoder.model.decoder.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def folder(mono_base, tmp_path_factory):
    files = resolve_base(str(mono_base))
    torch.manual_seed(0)
    updates = {
        Q: LowRank(torch.randn(2, 16), torch.randn(16, 2), 3.0),
        Q.replace("layers.0", "layers.1"): LowRank(torch.randn(2, 16), torch.randn(16, 2), 3.0),
        "enc_to_dec_proj": LowRank(torch.randn(2, 12), torch.zeros(16, 2), 3.0),
    }
    told = Woodshed(
        name=EVIL,
        base=describe_base(files, updates),
        codec=describe_codec(files),
        prompts=[EVIL, "two"],
        held_out=HeldOut(adapter=1.5, base=2.5, n_clips=3),
    )
    return save(tmp_path_factory.mktemp("adapters") / "mine", updates, told)


def test_norms_are_those_of_dense_updates(folder):
    adapter = adapters.load(folder)
    by_kind = {group["kind"]: group for group in describe(adapter)["groups"]}
    dense = torch.cat([u.delta().flatten() for name, u in adapter.updates.items() if "q_proj" in name])
    assert by_kind["self attention"]["norm"] == pytest.approx(float(dense.norm()), rel=1e-5)
    assert by_kind["self attention"]["modules"] == 2
    assert by_kind["text projection"] == {"kind": "text projection", "modules": 1, "norm": 0.0, "zero": 1}


def test_numbers_and_bytes_are_those_of_the_file(folder):
    size = describe(adapters.load(folder))["size"]
    assert size == {"modules": 3, "numbers": 2 * 32 * 2 + 2 * 28, "bytes": 4 * (2 * 32 * 2 + 2 * 28)}


def test_command_prints_everything_and_obeys_nothing(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["inspect", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out and "\u202e" not in out
    assert "[bold]x[/]" in out and "\\x1b" in out
    for text in ("rank 2", "alpha 3", "self attention", "1 of them unchanged", "held_out.adapter", "1.5", "mono"):
        assert text in out


def test_json_holds_all_of_it(folder, capsys):
    assert cli.main(["inspect", str(folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["stated"]["name"] == EVIL
    assert facts["stated"]["held_out"] == {"adapter": 1.5, "base": 2.5, "n_clips": 3}


def test_fit_is_the_exit_code(folder, mono_base, stereo_base, capsys):
    assert cli.main(["inspect", str(folder), "--base", str(mono_base)]) == 0
    assert "fits" in capsys.readouterr().out
    assert cli.main(["inspect", str(folder), "--base", str(stereo_base)]) == 1
    assert "codebooks: made for 4, the base has 8" in capsys.readouterr().out


def test_what_is_no_adapter_is_a_user_error(tmp_path, capsys):
    assert cli.main(["inspect", str(tmp_path)]) == 2
    assert "adapter_model.safetensors is missing" in capsys.readouterr().err


def test_harmless_keeps_ordinary_words():
    assert harmless("Füße & 音楽 – ok") == "Füße & 音楽 – ok"


def test_public_names_are_all_there():
    for name in adapters.__all__:
        assert getattr(adapters, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = adapters.nothing  # pyright: ignore[reportAttributeAccessIssue]
