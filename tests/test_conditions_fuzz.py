"""conditions.safetensors and its description from a stranger: what is changed is refused in a sentence, or sound."""

import json
import shutil
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from adapters import adapter_files
from adapters.added_conditions import attach as added_conditions
from adapters.family.load import load_lm
from adapters.fit import describe_base, describe_codec
from adapters.lora import attach
from adapters.metadata import AddedInfo, Woodshed
from configs.errors import UserError
from configs.train import LoraSettings
from data_prep.base_files import resolve_base

CONDITIONS = "conditions.safetensors"
often = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """An adapter of the debug base that follows a context track and beats."""
    files = resolve_base("debug")
    lm = load_lm(files)
    trainable = attach(lm, LoraSettings(rank=2, targets=["q"]), 0)
    infos = {
        "context": AddedInfo(
            name="context", values="codes", width=4, size=4, lookahead_frames=3, pair="drums|rest", stride_frames=4
        ),
        "beat": AddedInfo(name="beat", values="floats", width=4, size=4),
    }
    trainable.add_conditions(infos, 0)
    told = Woodshed(
        schema_version=2,
        name="fuzz",
        base=describe_base(files, trainable.modules),
        codec=describe_codec(files),
        conditions=list(infos.values()),
    )
    folder = tmp_path_factory.mktemp("fuzz") / "adapter"
    return adapter_files.save(folder, trainable.updates(), told, added=trainable.added)


def copied(adapter, tmp_path):
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(adapter, copy)
    return copy


def sound_or_refused(folder):
    """Read it, put it on the base: every weight a number and of the described shape, or a UserError."""
    try:
        read = adapter_files.load(folder)
        added_conditions.attach(load_lm(resolve_base("debug")), read.added)
    except UserError as error:
        assert str(error)
        return False
    for module in read.added.values():
        assert all(tensor.isfinite().all() for tensor in module.state_dict().values())
    return True


def test_the_unchanged_one_is_sound(adapter, tmp_path):
    assert sound_or_refused(copied(adapter, tmp_path))


@often
@given(st.data())
def test_changed_bytes(adapter, tmp_path, data):
    """A few bytes of the header or anywhere, and files cut short or lengthened."""
    folder = copied(adapter, tmp_path)
    whole = bytearray((folder / CONDITIONS).read_bytes())
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    for _ in range(data.draw(st.integers(0, 3))):
        reach = data.draw(st.sampled_from([8, header, len(whole)]))
        whole[data.draw(st.integers(0, reach - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.sampled_from([len(whole), data.draw(st.integers(0, len(whole)))]))
    (folder / CONDITIONS).write_bytes(bytes(whole[:length]) + data.draw(st.binary(max_size=3)))
    sound_or_refused(folder)


@often
@given(
    st.dictionaries(
        st.sampled_from(["name", "values", "width", "size", "lookahead_frames", "pair", "more"]),
        st.one_of(st.integers(-2, 2**40), st.text(max_size=20), st.none(), st.floats(), st.sampled_from(["codes"])),
        min_size=1,
    ),
    st.integers(0, 1),
)
def test_changed_descriptions(adapter, tmp_path, changes, place):
    folder = copied(adapter, tmp_path)
    value = json.loads((folder / "woodshed.json").read_text())
    value["conditions"][place] |= changes
    (folder / "woodshed.json").write_text(json.dumps(value))
    sound_or_refused(folder)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: {k.replace("beat", "tempo"): v for k, v in t.items()}, "is missing"),
        (lambda t: {**t, "context.more": torch.zeros(2)}, "is not part of any condition"),
        (lambda t: {**t, "beat.into": t["beat.into"].T.repeat(1, 2).contiguous()}, "has the shape"),
        (lambda t: {**t, "beat.into": torch.full_like(t["beat.into"], float("inf"))}, "no numbers"),
        (lambda t: {**t, "beat.into": t["beat.into"].long()}, "floating-point"),
    ],
)
def test_changed_tensors_say_what_is_wrong(adapter, tmp_path, change, why):
    folder = copied(adapter, tmp_path)
    save_file(change(load_file(folder / CONDITIONS)), folder / CONDITIONS)
    with pytest.raises(UserError, match=why):
        adapter_files.load(folder)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "smell"}, "smell"),
        ({"name": "melody"}, "other sizes"),
        ({"size": 4096, "lookahead_frames": 10_000, "width": 1024}, "asks for"),
    ],
)
def test_a_condition_that_nobody_can_make_is_refused(adapter, tmp_path, changes, why):
    """Names and sizes that fit the file but not the base, or that would take all memory."""
    folder = copied(adapter, tmp_path)
    value = json.loads((folder / "woodshed.json").read_text())
    value["conditions"][1] |= changes
    (folder / "woodshed.json").write_text(json.dumps(value))
    if "name" in changes:
        tensors = load_file(folder / CONDITIONS)
        save_file({k.replace("beat", changes["name"]): v for k, v in tensors.items()}, folder / CONDITIONS)
    with pytest.raises(UserError, match=why):
        read = adapter_files.load(folder)
        added_conditions.attach(load_lm(resolve_base("debug")), read.added)
