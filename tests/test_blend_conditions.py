"""Blended adapters that follow conditions: what they add is the weighted sum of what the sources add."""

from dataclasses import replace

import pytest
import torch
from adapter_fixtures import write_adapter
from torch.testing import assert_close

from adapters import adapter_files
from adapters.added_conditions.frames import FrameCodes, build
from adapters.added_conditions.prefix import prefix_of
from adapters.conditions import batch_conditions
from adapters.metadata import AddedInfo
from adapters.pattern import Delays
from data_prep.base_files import resolve_base
from finetune.cli import main

N = 40
PATTERN = Delays((0, 1, 2, 3))


def source(folder, base, seed, *, width=None, card=None, **changes):
    """An adapter that follows one kind, with random weights everywhere."""
    spec = resolve_base(str(base)).spec
    values = changes.get("values", "codes")
    info = AddedInfo(**{
        "name": "context", "values": values, "width": width or spec.n_codebooks, "size": 8, "lookahead_frames": 6,
        "pair": "drums|rest", **changes,
    })  # fmt: skip
    module = build(info, spec.n_codebooks, card or spec.card, spec.hidden)
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    told = {"conditions": [info], "schema_version": 2}
    return write_adapter(folder, base, seed=seed, told=told, added={info.name: module})


def follow(module, spec, rows=2):
    """What a module adds to the first steps, or the entries of its prefix."""
    generator = torch.Generator().manual_seed(9)
    if isinstance(module, FrameCodes):
        values = [torch.randint(0, spec.card, (N, spec.n_codebooks), generator=generator) for _ in range(rows)]
    else:
        values = [torch.randn(N, module.kind.width, generator=generator) for _ in range(rows)]
    given = batch_conditions(
        [{module.kind.name: one} for one in values], replace(spec, conditions=(*spec.conditions, module.kind))
    )[module.kind.name]
    assert given is not None
    with torch.no_grad():
        if module.stride:
            return prefix_of(module, given, PATTERN, lambda n: torch.zeros(n, spec.hidden)).entries
        return module(given, PATTERN, N)


def blended(sources, out, *more):
    assert main(["blend", *map(str, sources), "--out", str(out), *more]) == 0
    return adapter_files.load(out)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"size": 5, "pair": "bass|rest"}),
        ({"lookahead_frames": 8}, {"lookahead_frames": 0, "size": 12}),
        ({"lookahead_frames": 4}, {"lookahead_frames": 50}),
        ({"stride_frames": 4}, {"stride_frames": 4, "size": 3}),
        ({"name": "melody", "values": "floats", "width": 12}, {"name": "melody", "values": "floats", "width": 12}),
    ],
)
def test_what_is_added_is_the_weighted_sum(mono_base, tmp_path, capsys, first, second):
    one, other = (source(tmp_path / name, mono_base, seed, **how) for name, seed, how in
                  (("one", 1, first), ("other", 2, second)))  # fmt: skip
    both = blended([f"{one}@0.7", f"{other}@-0.4"], tmp_path / "both", "--scale", "2")
    (name,) = both.added
    spec = resolve_base(str(mono_base)).spec
    parts = [follow(adapter_files.load(folder).added[name], spec) for folder in (one, other)]
    assert_close(follow(both.added[name], spec), 2 * (0.7 * parts[0] - 0.4 * parts[1]), rtol=1e-4, atol=1e-4)
    assert f"{name}: {both.added[name].size} numbers a frame, from one, other" in capsys.readouterr().out
    assert both.woodshed is not None
    pairs = dict.fromkeys(["drums|rest", second.get("pair", "drums|rest")])
    assert both.woodshed.conditions[0].pair == ", ".join(pairs)


def test_one_that_follows_nothing_leaves_the_others_condition(mono_base, tmp_path):
    one, plain = source(tmp_path / "one", mono_base, 1), write_adapter(tmp_path / "plain", mono_base, seed=2)
    both = blended([f"{plain}@1.5", f"{one}@0.5"], tmp_path / "both", "--method", "svd", "--rank", "2")
    spec = resolve_base(str(mono_base)).spec
    alone = follow(adapter_files.load(one).added["context"], spec)
    assert_close(follow(both.added["context"], spec), 0.5 * alone, rtol=1e-5, atol=1e-5)


def test_different_kinds_are_both_followed(mono_base, tmp_path):
    one = source(tmp_path / "one", mono_base, 1)
    tune = source(tmp_path / "tune", mono_base, 2, name="melody", values="floats", width=12)
    both = blended([one, tune], tmp_path / "both")
    assert sorted(both.added) == ["context", "melody"]


def test_between_two_the_conditions_go_in_a_straight_line(mono_base, tmp_path):
    one, other = (source(tmp_path / str(seed), mono_base, seed) for seed in (1, 2))
    both = blended([f"{one}@1", f"{other}@3"], tmp_path / "both", "--method", "slerp")
    spec = resolve_base(str(mono_base)).spec
    parts = [follow(adapter_files.load(folder).added["context"], spec) for folder in (one, other)]
    assert_close(follow(both.added["context"], spec), 0.25 * parts[0] + 0.75 * parts[1], rtol=1e-4, atol=1e-4)


def test_one_that_is_left_out_brings_no_condition(mono_base, tmp_path, capsys):
    one, plain = source(tmp_path / "one", mono_base, 1), write_adapter(tmp_path / "plain", mono_base, seed=2)
    assert not blended([f"{one}@0", plain], tmp_path / "both").added
    other = source(tmp_path / "other", mono_base, 3)
    assert blended([f"{one}@0", other], tmp_path / "again").added["context"].size == 8
    assert "context: 8 numbers a frame, from other\n" in capsys.readouterr().out


def test_resize_leaves_conditions_as_they_are(mono_base, tmp_path):
    one = source(tmp_path / "one", mono_base, 1)
    small = blended([one], tmp_path / "small", "--method", "resize", "--rank", "1")
    before = adapter_files.load(one).added["context"].state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in small.added["context"].state_dict().items())


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ({"lookahead_frames": 6}, {"lookahead_frames": 5}, "look ahead"),
        ({"stride_frames": 4}, {}, "another way"),
        ({"stride_frames": 4}, {"stride_frames": 5}, "another way"),
        ({"size": 4000}, {"size": 100}, "4,096 are the most"),
    ],
)
def test_conditions_that_cannot_be_one_are_refused(mono_base, tmp_path, capsys, first, second, why):
    one, other = (source(tmp_path / name, mono_base, 1, **how) for name, how in (("one", first), ("other", second)))
    assert main(["blend", str(one), str(other), "--out", str(tmp_path / "both")]) == 2
    told = capsys.readouterr().err
    assert why in told.replace("\n", " ") and "Traceback" not in told
    assert not (tmp_path / "both").exists()
