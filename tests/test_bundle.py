"""Bundles: the same adapter comes out, the same bytes go in, and nothing but an adapter is ever unpacked."""

import hashlib
import json
import os
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from adapter_fixtures import write_adapter

from adapters import adapter_files
from adapters.bundle import MANIFEST, pack, unpack
from adapters.shareable import MAX_SAMPLES, SAMPLE, limit_of, shared_files
from configs.errors import UserError
from finetune.cli import main


@pytest.fixture(scope="module")
def adapter(mono_base, tmp_path_factory):
    folder = write_adapter(tmp_path_factory.mktemp("adapter") / "mine", mono_base)
    (folder / "samples").mkdir()
    (folder / "samples" / "piano 0.wav").write_bytes(b"RIFF" + bytes(100))
    (folder / "samples" / "notes.txt").write_text("private")
    (folder / "diary.md").write_text("private")
    return folder


@pytest.fixture(scope="module")
def bundle(adapter, tmp_path_factory):
    file = tmp_path_factory.mktemp("bundle") / "mine.zip"
    pack(adapter, file)
    return file


def test_round_trip(adapter, bundle, tmp_path):
    folder = tmp_path / "deep" / "back"
    back = unpack(bundle, folder)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {file.name for file in shared_files(adapter)}
    assert names == {*adapter_files_of_four(), "samples/piano 0.wav"}
    for name in names:
        assert (folder / name).read_bytes() == (adapter / name).read_bytes()
    assert back.label == "mine" and back.folder == folder


def adapter_files_of_four():
    return {"adapter_model.safetensors", "adapter_config.json", "woodshed.json", "README.md"}


def test_only_an_adapters_files_go_in_and_always_the_same_bytes(adapter, bundle, tmp_path):
    with zipfile.ZipFile(bundle) as archive:
        assert set(archive.namelist()) == {MANIFEST, *adapter_files_of_four(), "samples/piano 0.wav"}
        assert b"private" not in b"".join(archive.read(name) for name in archive.namelist())
    for path in adapter.rglob("*"):
        os.utime(path, (1, 1))
    pack(adapter, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()


def test_an_unsound_adapter_is_not_packed(adapter, tmp_path, mono_base):
    broken = write_adapter(tmp_path / "broken", mono_base)
    (broken / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError):
        pack(broken, tmp_path / "x.zip")
    linked = write_adapter(tmp_path / "linked", mono_base)
    (linked / "README.md").unlink()
    (linked / "README.md").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="link"):
        pack(linked, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_a_bundle_where_a_folder_belongs(bundle, tmp_path, capsys):
    assert main(["bundle", str(bundle), str(tmp_path / "new")]) == 2
    assert f"woodshed bundle --open {bundle} {tmp_path / 'new'}" in capsys.readouterr().err


def rebuilt(bundle: Path, target: Path, change, *, manifest=None, compression=zipfile.ZIP_STORED) -> Path:
    """The bundle again, after `change(list of (ZipInfo, bytes))`, with a manifest that agrees unless one is given."""
    with zipfile.ZipFile(bundle) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist() if entry.filename != MANIFEST]
    entries = change(entries)
    listed = {e.filename: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for e, data in entries}
    told = {"format": "woodshed-bundle", "version": 1, "files": listed} | (manifest or {})
    with zipfile.ZipFile(target, "w", compression) as archive:
        archive.writestr(zipfile.ZipInfo(MANIFEST), json.dumps(told))
        for entry, data in entries:
            entry.compress_type = compression
            archive.writestr(entry, data)
    return target


def added(name, data=b"x", **fields):
    def change(entries):
        entry = zipfile.ZipInfo(name)
        entry.external_attr = 0o100644 << 16
        for field, value in fields.items():
            setattr(entry, field, value)
        return [*entries, (entry, data)]

    return change


def replaced(name, data):
    return lambda entries: [(entry, data if entry.filename == name else old) for entry, old in entries]


HOSTILE = {
    "parent": added("../evil.txt"),
    "absolute": added("/tmp/evil.txt"),
    "drive": added("C:/evil.txt"),
    "backslash": added("samples\\..\\..\\evil.wav"),
    "deep": added("samples/../../evil.wav"),
    "stranger": added("setup.py"),
    "hidden": added(".bashrc"),
    "archive inside": added("more.zip", b"PK\x03\x04"),
    "pickle": added("adapter_model.bin"),
    "device": added("samples/con.wav"),
    "folder": added("samples/"),
    "link": added("samples/a.wav", b"/etc/passwd", external_attr=0o120777 << 16),
    "case twin": added("SAMPLES/piano 0.wav"),
    "same on some systems": added("samples/PIANO 0.wav"),
    "upper": added("README.MD"),
    "comment": added("samples/a.wav", comment=b"hello"),
    "extra": added("samples/a.wav", extra=struct.pack("<HH", 9, 0)),
    "too large": added("README.md2", b"x"),
    "config": replaced("adapter_config.json", b"{}"),
    "weights": replaced("adapter_model.safetensors", b"\x80\x04pickle"),
    "card": replaced("README.md", b"x" * (2**20 + 1)),
    "future": (lambda entries: entries, {"version": 2}),
    "other format": (lambda entries: entries, {"format": "jar"}),
    "no files": (lambda entries: entries, {"files": {}}),
    "hashes of others": (lambda entries: entries, {"files": "all"}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_bundles_are_refused_and_leave_nothing(bundle, tmp_path, kind):
    change, manifest = HOSTILE[kind] if isinstance(HOSTILE[kind], tuple) else (HOSTILE[kind], None)
    file = rebuilt(bundle, tmp_path / "in.zip", change, manifest=manifest)
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(UserError):
        unpack(file, inside / "out")
    assert list(inside.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zip", "inside"]


def test_what_swells_is_refused(bundle, tmp_path):
    file = rebuilt(bundle, tmp_path / "in.zip", lambda entries: entries, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="packed in a way"):
        unpack(file, tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_twins_are_refused(bundle, tmp_path):
    file = rebuilt(bundle, tmp_path / "in.zip", lambda entries: [*entries, entries[0]])
    with pytest.raises(UserError):
        unpack(file, tmp_path / "out")


def test_a_changed_byte_is_seen(bundle, tmp_path):
    data = bytearray(bundle.read_bytes())
    place = data.index(b"RIFF")
    for changed in (
        data[: place + 10] + b"!" + data[place + 11 :],
        data[:-1],
        data + b"!",
        b"!" + data,
        data[:50],
        b"",
    ):
        (tmp_path / "in.zip").write_bytes(bytes(changed))
        with pytest.raises(UserError):
            unpack(tmp_path / "in.zip", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_hashes_count_even_where_a_zip_is_sound(bundle, tmp_path):
    def lie(entries):
        """Another card of the same size, with the list of the old one."""
        return [(e, data[::-1] if e.filename == "README.md" else data) for e, data in entries]

    with zipfile.ZipFile(bundle) as archive:
        listed = json.loads(archive.read(MANIFEST))["files"]
    file = rebuilt(bundle, tmp_path / "in.zip", lie, manifest={"files": listed})
    with pytest.raises(UserError, match="not what its sender packed"):
        unpack(file, tmp_path / "out")


def test_millions_of_entries_are_not_even_read(tmp_path):
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 60_000, 60_000, 2**31, 0, 0)
    (tmp_path / "in.zip").write_bytes(end)
    with pytest.raises(UserError, match="60000 entries"):
        unpack(tmp_path / "in.zip", tmp_path / "out")


def test_as_many_samples_as_may_be_are_packed_and_opened(mono_base, tmp_path):
    folder = write_adapter(tmp_path / "mine", mono_base)
    (folder / "samples").mkdir()
    for number in range(MAX_SAMPLES):
        (folder / "samples" / f"{number:02}{'x' * 98}.flac").write_bytes(b"fLaC")
    pack(folder, tmp_path / "mine.zip")
    unpack(tmp_path / "mine.zip", tmp_path / "back")
    assert len(list((tmp_path / "back" / "samples").iterdir())) == MAX_SAMPLES
    (folder / "samples" / "more.flac").write_bytes(b"fLaC")
    with pytest.raises(UserError, match="at most 64"):
        pack(folder, tmp_path / "more.zip")


def test_sample_names_are_plain():
    assert limit_of("samples/piano, slow.wav") is None
    assert limit_of("samples/a/b.wav") is None and limit_of("samples/.hidden.wav") is None
    assert SAMPLE.fullmatch("samples/01 piano-solo_v2.flac") and limit_of("README.md") == 2**20


def test_command(adapter, bundle, tmp_path, capsys):
    assert main(["bundle", str(adapter), str(tmp_path / "mine.zip")]) == 0
    shown = capsys.readouterr().out
    assert "adapter_model.safetensors" in shown and "diary" not in shown
    assert main(["bundle", "--open", str(tmp_path / "mine.zip"), str(tmp_path / "mine")]) == 0
    assert "trigger: in the style of mine" in capsys.readouterr().out
    one, other = adapter_files.load(adapter).updates, adapter_files.load(tmp_path / "mine").updates
    assert all(torch.equal(one[module].a, other[module].a) for module in one)
    for words in (["bundle", str(adapter), str(tmp_path / "mine.zip")], ["bundle", "--open", "no.zip", "x"]):
        assert main(words) == 2
