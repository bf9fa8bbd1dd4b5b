"""Everything that Woodshed writes: made beside its place, flushed to the disk, and renamed into it.

A reader sees the old file or the new one, never half of one, and whatever ends a write leaves nothing behind: no part,
no parent folder that was made for it. What a disk has to say (full, read-only, over quota, a name too long) becomes one
sentence. It does not know what is in the files, and it cannot keep a promise for a disk that lies about flushing.
"""

import errno
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from configs.errors import UserError

AGAIN = "run the same command again."
GOES_ON = "run the same command: it goes on from here."
LONGEST_NAME_BYTES = 255
"""Of one file or folder on the file systems in use today (ext4, XFS, APFS, NTFS in other units)."""

_ROOM = "Free some disk space or choose another disk, then {again}"
_RIGHT = "Choose another folder, or make this one writable, then {again}"
_NAME = "Choose a shorter name, then {again}"
_OTHER = "Choose another folder, then {again}"
_MEANING: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", _ROOM),
    errno.EDQUOT: ("your quota on this disk is used up", _ROOM),
    errno.EFBIG: ("the file is larger than this disk or this process may hold", _ROOM),
    errno.EROFS: ("this disk is read-only", _RIGHT),
    errno.EACCES: ("access is not permitted", _RIGHT),
    errno.EPERM: ("access is not permitted", _RIGHT),
    errno.ENAMETOOLONG: ("the name is too long for this disk", _NAME),
    errno.ENOTDIR: ("a part of this path is a file, not a folder", _OTHER),
    errno.EISDIR: ("a folder has this name", _OTHER),
    errno.EEXIST: ("something has this name already", _OTHER),
    errno.ENOTEMPTY: ("a folder with files in it has this name already", _OTHER),
    errno.EILSEQ: ("this disk does not take such a name", _OTHER),
    errno.EIO: ("the disk reports an error", "Check this disk, or choose another one, then {again}"),
    errno.ESTALE: ("the network folder is gone", "Mount it again, then {again}"),
}
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def written_beside(path: Path, *, flush: bool = False, again: str = AGAIN) -> Iterator[Path]:
    """A path to write a file to; it becomes `path` in one step when the block ends well.

    With `flush` its bytes are on the disk before it has its name. Some disks say only then that they are full.

    Raises:
        UserError: the disk is full or refuses.
    """
    part, made = part_of(path), missing_parents(path)
    try:
        with storing(path, again=again):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            if flush:
                flush_file(part)
            part.replace(path)
            made = []
            if flush:
                flush_names(path.parent)
    finally:
        with suppress(OSError):
            remove(part)
        take_back(made)


@contextmanager
def folder_beside(path: Path, *, replace: bool = False, again: str = AGAIN) -> Iterator[Path]:
    """A new folder to fill; it appears as `path` when the block ends well, all of it flushed, or not at all.

    With `replace`, a folder of that name gives way in the same moment; otherwise only an empty one does.

    Raises:
        UserError: `path` is taken, or the disk is full or refuses.
    """
    part, old, made = part_of(path), part_of(path.with_name(f"{path.name}.old")), missing_parents(path)
    try:
        with storing(path, again=again):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove(part)
            part.mkdir()
            yield part
            flush_folder(part)
            _swap(part, path, old, replace)
            made = []
    finally:
        with suppress(OSError):
            remove(part)
        if path.exists():
            with suppress(OSError):
                remove(old)
        take_back(made)


def write_text(path: Path, text: str, *, again: str = AGAIN) -> None:
    """Write a file of text.

    Raises:
        UserError: the disk is full or refuses.
    """
    write_bytes(path, text.encode(), again=again)


def write_bytes(path: Path, content: bytes, *, again: str = AGAIN) -> None:
    """Write a file.

    Raises:
        UserError: the disk is full or refuses.
    """
    with written_beside(path, flush=True, again=again) as part:
        part.write_bytes(content)


def check_new(path: Path, kind: str = "folder") -> None:
    """Refuse a place that is taken, before anything is done for it.

    Raises:
        UserError: something is there, or a file of 4 KiB cannot be written beside it.
    """
    if os.path.lexists(path):
        raise UserError(f"{path} is there already.", fix=f"Choose a {kind} that does not exist yet.")
    check_writable(path)


def check_writable(path: Path, *, again: str = AGAIN) -> None:
    """Find out whether `path` could be written, by a small file beside it that is gone afterwards.

    Raises:
        UserError: the disk is full or refuses, so work for this place would be lost.
    """
    with storing(path, again=again):
        if len(os.fsencode(path.name)) > LONGEST_NAME_BYTES:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
        part, made = part_of(path), missing_parents(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(bytes(4096))
            flush_file(part)
        finally:
            with suppress(OSError):
                remove(part)
            take_back(made)


@contextmanager
def storing(path: Path, *, again: str = AGAIN) -> Iterator[None]:
    """Around what writes: a disk that is full or refuses is told in plain words.

    Raises:
        UserError: it is so.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause = as_os_error(error)
        if cause is None:
            raise
        raise disk_error(cause, path, again=again) from error


def disk_error(error: OSError, path: Path | None = None, *, again: str = AGAIN) -> UserError:
    """What an error of the disk means for the person; `path` is what was to be written."""
    why, fix = _MEANING.get(error.errno or 0, (error.strerror or str(error) or type(error).__name__, _OTHER))
    place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
    known = path or place
    failed = "cannot be used" if path is None else "could not be written"  # it may have been read
    what = f"{known.name or known} {failed}: {why}." if known else f"Writing failed: {why}."
    where = str(known or "")
    if path is not None and place is not None and not _belongs(place, path):
        where += f" ({place}: {error.strerror})"
    return UserError(what, where=where, fix=fix.format(again=again))


def is_about_disk(error: BaseException) -> bool:
    """Whether an error says that a disk is full or refuses, whoever raised it."""
    cause = as_os_error(error)
    about = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.ENAMETOOLONG, errno.ESTALE}
    return cause is not None and (cause.errno in about or isinstance(cause, PermissionError))


def as_os_error(error: BaseException) -> OSError | None:
    """The system's error in what a library raised: safetensors puts its number into the text of its own kind."""
    if isinstance(error, OSError):
        return error
    found = _RUST_ERROR.search(str(error)) if type(error).__name__ == "SafetensorError" else None
    return None if found is None else OSError(int(found[1]), os.strerror(int(found[1])))


def part_of(path: Path) -> Path:
    """The name under which something is written before it becomes `path`; another process has another."""
    end = f".{os.getpid()}.part"
    if len(os.fsencode(path.name)) + len(end) + 1 > LONGEST_NAME_BYTES:
        import hashlib

        return path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}{end}")
    return path.with_name(f".{path.name}{end}")


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Have every file below a folder on the disk, and then the names."""
    for path in sorted(folder.rglob("*"), reverse=True):
        flush_names(path) if path.is_dir() else flush_file(path)
    flush_names(folder)


def flush_file(path: Path) -> None:
    """Have a file's bytes on the disk."""
    with path.open("rb") as file:
        _sync(file.fileno())


def flush_names(folder: Path) -> None:
    """Have a folder's list of names on the disk, where a system lets folders be opened (Windows does not)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _sync(handle)
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # file systems without flushing
            raise


def _swap(part: Path, path: Path, old: Path, replace: bool) -> None:
    """Give the finished folder its name; if that fails, what was there keeps it."""
    if not path.exists() and not path.is_symlink():
        part.rename(path)
    else:
        if not replace and (not path.is_dir() or any(path.iterdir())):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        remove(old)
        path.rename(old)
        try:
            part.rename(path)
        except OSError:
            old.rename(path)
            raise
    flush_names(path.parent)


def missing_parents(path: Path) -> list[Path]:
    """The folders above that are not there yet, innermost first."""
    return list(itertools.takewhile(lambda parent: not os.path.lexists(parent), path.parents))


def take_back(made: list[Path]) -> None:
    """Remove folders that were made for nothing; one that has become somebody's is not empty and stays."""
    for folder in made:
        with suppress(OSError):
            folder.rmdir()


def _belongs(place: Path, path: Path) -> bool:
    """Whether an error names what was to be written: the file, its part, something in it, or a folder above it."""
    return place in (path, *path.parents) or place.parent in (path.parent, path) or part_of(path) in place.parents
