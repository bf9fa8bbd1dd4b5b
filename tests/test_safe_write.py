"""Writing in one place: whole or not at all, and a disk's refusals as sentences."""

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_disks import leave_free, read_only, small_disk, tree

from configs.errors import UserError
from data_prep import safe_write
from data_prep.safe_write import (
    check_new,
    check_writable,
    disk_error,
    folder_beside,
    part_of,
    write_text,
    written_beside,
)
from data_prep.write_audio import FloatWavWriter, write_audio


class Stop(Exception):  # noqa: N818
    """Stands for anything that ends a block, Ctrl-C too."""


def test_a_file_and_a_folder_appear_whole_with_the_folders_above(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "page.html", "grüße")
    with folder_beside(tmp_path / "c" / "d" / "made") as made:
        (made / "x").write_text("x")
        assert not (tmp_path / "c" / "d" / "made").exists()
    assert (tmp_path / "a/b/page.html").read_text("utf-8") == "grüße"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "c", "d", "made", "page.html", "x"]


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, OSError(errno.ENOSPC, "full"), UserError("no")])
def test_what_ends_a_write_leaves_the_old_and_nothing_new(tmp_path: Path, error) -> None:
    old = tmp_path / "old"
    write_text(old / "file", "old")
    before = tree(tmp_path)
    with pytest.raises((Stop, KeyboardInterrupt, UserError)), written_beside(old / "file") as part:
        part.write_text("half")
        raise error
    with pytest.raises((Stop, KeyboardInterrupt, UserError)), folder_beside(old, replace=True) as part:
        (part / "half").mkdir()
        raise error
    with pytest.raises((Stop, KeyboardInterrupt, UserError)), folder_beside(tmp_path / "new/deep/er") as part:
        (part / "half").write_text("half")
        raise error
    assert tree(tmp_path) == before


def test_a_folder_is_replaced_only_where_asked(tmp_path: Path) -> None:
    write_text(tmp_path / "taken" / "file", "old")
    with pytest.raises(UserError, match="has this name already"), folder_beside(tmp_path / "taken") as part:
        (part / "file").write_text("new")
    assert tree(tmp_path) == {"taken": None, "taken/file": b"old"}
    with folder_beside(tmp_path / "taken", replace=True) as part:
        (part / "other").write_text("new")
    assert tree(tmp_path) == {"taken": None, "taken/other": b"new"}
    (tmp_path / "empty").mkdir()
    with folder_beside(tmp_path / "empty") as part:
        (part / "file").write_text("new")
    assert (tmp_path / "empty/file").read_text() == "new"


def test_a_swap_that_fails_gives_the_old_folder_its_name_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "taken" / "file", "old")
    rename, mine = Path.rename, part_of(tmp_path / "taken")

    def broken(path: Path, target: Path) -> Path:
        if path == mine:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(UserError, match="reports an error"), folder_beside(tmp_path / "taken", replace=True):
        pass
    assert tree(tmp_path) == {"taken": None, "taken/file": b"old"}


@pytest.mark.parametrize(
    ("number", "what", "fix"),
    [
        (errno.ENOSPC, "the disk is full", "Free some disk space"),
        (errno.EDQUOT, "quota", "Free some disk space"),
        (errno.EFBIG, "larger than", "disk space"),
        (errno.EROFS, "read-only", "writable"),
        (errno.EACCES, "not permitted", "writable"),
        (errno.ENAMETOOLONG, "too long", "shorter name"),
        (errno.ENOTDIR, "is a file", "another folder"),
        (errno.EIO, "reports an error", "another one"),
        (errno.EMFILE, os.strerror(errno.EMFILE), "run the same"),
    ],
)
def test_every_refusal_is_a_sentence_with_a_next_step(number: int, what: str, fix: str) -> None:
    told = disk_error(OSError(number, os.strerror(number)), Path("out/song.wav"))
    assert told.what.startswith("song.wav could not be written: ") and what in told.what
    assert fix in told.fix and told.fix.endswith("run the same command again.") and told.where == "out/song.wav"


def test_an_error_elsewhere_names_its_place() -> None:
    error = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/models/base/model.safetensors")
    told = disk_error(error, Path("/out/merged"))
    assert "/models/base/model.safetensors" in told.where and "/out/merged" in told.where


def test_names_that_are_too_long(tmp_path: Path) -> None:
    fits = tmp_path / ("n" * 255)
    write_text(fits, "fits")  # the name beside it must not be longer
    with folder_beside(tmp_path / ("ü" * 120)) as part:
        (part / "x").write_text("x")
    before = tree(tmp_path)
    for write in (write_text, check_writable):
        with pytest.raises(UserError, match="name is too long"):
            write(tmp_path / ("ü" * 130), *(["x"] if write is write_text else []))
    with pytest.raises(UserError, match="name is too long"):
        check_new(tmp_path / ("n" * 256))
    assert tree(tmp_path) == before


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_the_part_of_any_name_that_fits_fits(name: str) -> None:
    if len(os.fsencode(name)) <= 255 and name not in (".", ".."):
        assert len(os.fsencode(part_of(Path(name)).name)) <= 255


def test_a_place_is_tried_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "not" / "yet" / "there")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is there already"):
        check_new(tmp_path / "file", "file")
    with pytest.raises(UserError, match=r"a file, not a folder|has this name already"):
        check_writable(tmp_path / "file" / "below")
    assert tree(tmp_path) == {"file": b"x"}
    with read_only(tmp_path), pytest.raises(UserError, match=r"read-only|not permitted"):
        check_writable(tmp_path / "new" / "x")


@pytest.mark.parametrize("kib", [0, 8, 60])
def test_a_full_disk_is_told_whoever_writes(tmp_path: Path, kib: int) -> None:
    from safetensors.numpy import save_file

    noise = np.random.default_rng(0).uniform(-1, 1, (2, 60_000)).astype(np.float32)

    def streamed(path: Path) -> None:
        with FloatWavWriter(path, 32_000, 2, 60_000) as file:
            file.write(noise)

    def tensors(path: Path) -> None:
        with written_beside(path) as part:
            save_file({"noise": noise}, part)

    writers = {
        "a.wav": lambda path: write_audio(path, noise, 32_000),
        "a.flac": lambda path: write_audio(path, noise, 32_000),
        "b.wav": streamed,
        "t.safetensors": tensors,
        "text": lambda path: write_text(path, "x" * 200_000),
    }
    with small_disk(tmp_path / "disk", 300) as disk:
        leave_free(disk, kib)
        for name, write in writers.items():
            with pytest.raises(UserError, match="the disk is full"):
                write(disk / "new" / name)
            assert tree(disk) == {}, name


def test_bytes_are_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []

    def note(handle: int) -> None:
        found = os.fstat(handle)
        synced.append("folder" if stat.S_ISDIR(found.st_mode) else (found.st_size, (tmp_path / "file").exists()))

    monkeypatch.setattr(safe_write.os, "fsync", note)
    write_text(tmp_path / "file", "12345")
    assert synced == [(5, False), "folder"]
