"""`woodshed blend` from folder to folder: what it writes plays as the blend of its sources, and says what it is."""

import json
import re

import pytest
import torch
from adapter_fixtures import FC, Q, lm_logits, random_updates, write_adapter
from torch.testing import assert_close

from adapters import adapter_files
from adapters.peft_layout import to_tensors
from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.debug_base import write_debug_base
from data_prep.fingerprint import fingerprint
from finetune.cli import main


@pytest.fixture(scope="module")
def two(mono_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    one = write_adapter(folder / "blues", mono_base, seed=1, told={"license": "cc-by-4.0"})
    return one, write_adapter(folder / "punk", mono_base, seed=2, rank=3, rslora=True, told={"license": "cc-by-4.0"})


def dense(folder, base):
    weights = {f"{m}.weight": t for m, t in _weights(base).items()}
    return {m: u.delta(weights.get(f"{m}.weight")) for m, u in adapter_files.load(folder).updates.items()}


def _weights(base):
    from safetensors.torch import load_file

    return {name.removesuffix(".weight"): t for name, t in load_file(base / "model.safetensors").items()}


def test_exact_blend_is_the_weighted_sum_and_tells_its_story(two, mono_base, tmp_path, capsys):
    out = tmp_path / "new" / "both"
    assert main(["blend", f"{two[0]}@0.7", f"{two[1]}@-0.3", "--out", str(out)]) == 0
    assert "exact" in capsys.readouterr().out
    one, other, both = (dense(folder, mono_base) for folder in (*two, out))
    for module, delta in both.items():
        assert_close(delta, 0.7 * one[module] - 0.3 * other[module], rtol=1e-5, atol=1e-6)
    told = adapter_files.load(out).woodshed
    assert told is not None and told.made is not None
    assert told.name == "both" and told.license == "cc-by-4.0"
    assert told.trigger == "in the style of blues", "one that was taken away leaves no trigger"
    assert told.made.method == "concatenate" and told.made.error == 0
    assert [(s.name, s.weight) for s in told.made.sources] == [("blues", 0.7), ("punk", -0.3)]
    assert told.made.sources[0].fingerprint == fingerprint(to_tensors(adapter_files.load(two[0]).updates))
    everything = "".join(path.read_text() for path in out.iterdir() if path.suffix != ".safetensors")
    assert str(tmp_path) not in everything and str(two[0].parent) not in everything


def test_triggers_are_joined_or_given(two, tmp_path):
    assert main(["blend", str(two[0]), str(two[1]), "--out", str(tmp_path / "a")]) == 0
    assert main(["blend", str(two[0]), str(two[1]), "--trigger", "ours", "--out", str(tmp_path / "b")]) == 0
    joined, given = (adapter_files.load(tmp_path / name).woodshed for name in "ab")
    assert joined and joined.trigger == "in the style of blues, in the style of punk"
    assert given and given.trigger == "ours"


def test_a_long_name_is_cut(two, tmp_path):
    more = ["--name", "n" * 300, "--trigger", "t" * 2000]
    assert main(["blend", str(two[0]), *more, "--out", str(tmp_path / "a")]) == 0
    words = ["convert", str(two[0]), "--to", "peft", "--name", "n" * 300, "--out", str(tmp_path / "b")]
    assert main(words) == 0
    blended, converted = (adapter_files.load(tmp_path / name).woodshed for name in "ab")
    assert blended and blended.name == "n" * 200 and blended.trigger == "t" * 1000
    assert converted and converted.name == "n" * 200


def test_a_lower_rank_tells_its_error(two, tmp_path, capsys):
    out = tmp_path / "small"
    assert main(["blend", *map(str, two), "--method", "svd", "--rank", "2", "--out", str(out)]) == 0
    loaded = adapter_files.load(out)
    assert {update.rank for update in loaded.updates.values()} == {2}
    assert loaded.woodshed and loaded.woodshed.made
    shown = re.search(r"lost: ([\d.]+)%", capsys.readouterr().out)
    assert shown and float(shown[1]) == pytest.approx(100 * loaded.woodshed.made.error, abs=0.01)
    assert loaded.woodshed.made.error > 0.01


def test_dora_and_other_modules_go_through_the_base(two, mono_base, tmp_path):
    dora = write_adapter(tmp_path / "dora", mono_base, seed=3, dora=True, modules=(Q, FC))
    command = ["blend", str(two[0]), f"{dora}@0.5", "--method", "svd", "--rank", "16", "--out", str(tmp_path / "out")]
    assert main([*command, "--base", str(mono_base)]) == 0
    one, other, both = (dense(folder, mono_base) for folder in (two[0], dora, tmp_path / "out"))
    assert_close(both[FC], one[FC] + 0.5 * other[FC], rtol=1e-4, atol=1e-4)


def test_resize_up_changes_no_logit(two, mono_base, tmp_path):
    out = tmp_path / "big"
    assert main(["blend", str(two[1]), "--method", "resize", "--rank", "7", "--out", str(out)]) == 0
    files = resolve_base(str(mono_base))
    before, after = adapter_files.load(two[1]).updates, adapter_files.load(out).updates
    assert {update.rank for update in after.values()} == {7}
    assert_close(lm_logits(files, after), lm_logits(files, before))


def test_adapters_of_different_bases_are_refused(two, tmp_path, capsys):
    other = write_debug_base(tmp_path / "other", seed=9)
    stranger = write_adapter(tmp_path / "stranger", other, seed=1)
    command = ["blend", str(two[0]), str(stranger), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "different bases" in capsys.readouterr().err
    assert main([*command, "--base", str(other)]) == 2
    assert "fingerprint" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    for number, more in enumerate(([], ["--base", str(other)])):
        forced = [*command[:-1], str(tmp_path / f"forced-{number}"), *more, "--force"]
        assert main(forced) == 0
        shown = capsys.readouterr().out
        assert "forced:" in shown and ("different bases" in shown or "fingerprint" in shown)
        one, two_, both = (dense(folder, other) for folder in (two[0], stranger, tmp_path / f"forced-{number}"))
        assert_close(both[Q], one[Q] + two_[Q], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{0}@much"], "is no strength"),
        (["{0}@nan"], "is no strength"),
        (["{0}", "{1}", "--method", "resize", "--rank", "2"], "one adapter"),
        (["{0}", "--method", "resize"], "resize needs"),
        (["{0}", "--method", "svd"], "svd needs a rank"),
        (["nowhere"], "no adapter folder"),
    ],
)
def test_mistakes_are_told(two, tmp_path, capsys, words, told):
    out = tmp_path / "out"
    assert main(["blend", *(word.format(*two) for word in words), "--out", str(out)]) == 2
    assert told in capsys.readouterr().err
    assert not out.exists()


def test_nothing_is_overwritten_unasked(two, tmp_path, capsys):
    command = ["blend", str(two[0]), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert main(command) == 2
    assert "taken" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_a_plain_peft_adapter_needs_its_base(mono_base, tmp_path, capsys):
    plain = write_adapter(tmp_path / "plain", mono_base)
    (plain / "woodshed.json").unlink()
    config = json.loads((plain / "adapter_config.json").read_text())
    (plain / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    command = ["blend", str(plain), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "does not say which base" in capsys.readouterr().err
    assert main([*command, "--base", str(mono_base)]) == 0
    with pytest.raises(UserError):
        adapter_files.load(tmp_path / "nothing")


def test_random_updates_are_heard(mono_base):
    files = resolve_base(str(mono_base))
    changed = lm_logits(files, random_updates(mono_base)) - lm_logits(files)
    assert float(changed.abs().max()) > 0.05 and torch.isfinite(changed).all()
