"""Disks that are full or read-only, for tests of what is written: real ones, mounted for the test."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, kib: int = 1024) -> Iterator[Path]:
    """A disk of this size at `folder`; the test is skipped where mounting is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("NOT TESTED: full disks (there is no mount command)")
    if done.returncode:
        pytest.skip(f"NOT TESTED: full disks (mounting needs root: {done.stderr.strip()})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def leave_free(disk: Path, kib: int) -> None:
    """Fill a disk up to this much."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    free = os.statvfs(disk)
    with ballast.open("wb") as file:
        file.write(bytes(max(0, free.f_bavail * free.f_frsize - kib * 1024)))


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """The folder, in which nothing can be written while the block runs, by root either."""
    if os.name == "nt" or (os.geteuid() == 0 and not _remount(folder, "ro")):
        pytest.skip("NOT TESTED: read-only folders (root may write everywhere, and mounting is not permitted)")
    if os.geteuid() == 0:
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    folder.chmod(0o555)
    try:
        yield folder
    finally:
        folder.chmod(0o755)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every name below a folder with what it holds, but for the ballast."""
    found = (path for path in sorted(folder.rglob("*")) if path.name != "ballast")
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in found}


def _remount(folder: Path, how: str) -> bool:
    """Mount a folder onto itself, read-only."""
    for options in ("bind", f"remount,bind,{how}"):
        words = ["mount", "-o", options, str(folder), str(folder)]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            return False
    return True
