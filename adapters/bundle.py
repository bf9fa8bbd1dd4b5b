"""One adapter in one file to send to a friend: a zip that holds only an adapter's files and a list of their hashes.

Files are stored, not compressed (weights do not compress), in a fixed order and with a fixed date: the same adapter
makes the same bytes. What comes in is held to the same form, which leaves no room for anything but an adapter: no
other names, so no paths that climb out, no links, no archives inside; nothing compressed, so nothing that swells.
"""

import hashlib
import json
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapters import adapter_files
from adapters.adapter_files import CONFIG, WEIGHTS, Adapter
from adapters.printable import short
from adapters.shareable import MAX_BYTES, MAX_SAMPLES, SharedFile, check_number, check_size, shared_files
from configs.errors import UserError
from data_prep.safe_write import check_new, folder_beside, written_beside

MANIFEST, FORMAT, VERSION = "bundle.json", "woodshed-bundle", 1
MAX_BUNDLE_BYTES, MAX_MANIFEST_BYTES, MAX_DIRECTORY_BYTES = 2**32 - 2**20, 2**16, 2**16
MAX_ENTRIES = 1 + len(MAX_BYTES) + MAX_SAMPLES
DATE = (1980, 1, 1, 0, 0, 0)
CHUNK = 2**20
END = struct.Struct("<4s4H2LH")
"""A zip's last record: signature, disks, entries here and in all, the directory's size and place, comment length."""


def pack(folder: Path, out: Path) -> list[SharedFile]:
    """Check an adapter and write it as one file; returns what is in it.

    Raises:
        UserError: the adapter is not sound, `out` is there already, or the disk is full or refuses.
    """
    check_new(out, "file")
    adapter_files.load(folder)
    files = shared_files(folder)
    hashes = {file.name: _sha256(file.path) for file in files}
    listed = {file.name: {"bytes": file.n_bytes, "sha256": hashes[file.name]} for file in files}
    manifest = json.dumps({"format": FORMAT, "version": VERSION, "files": listed}, indent=1).encode()
    with (
        written_beside(out, flush=True) as made,
        zipfile.ZipFile(made, "w", zipfile.ZIP_STORED, allowZip64=False) as archive,
    ):
        archive.writestr(_entry(MANIFEST), manifest)
        for file in files:
            _add(archive, file)
    return files


def unpack(file: Path, out: Path) -> Adapter:
    """Check a bundle and write its adapter into the new folder `out`, all of it or nothing; returns the adapter.

    Raises:
        UserError: anything about the file is not as `pack` writes it, or the adapter in it is not sound.
    """
    check_new(out)
    with _opened(file) as archive:
        entries = _checked_entries(archive, file)
        listed = _manifest(archive, entries, file)
        with folder_beside(out) as made:
            for name, told in listed.items():
                _extract(archive, entries[name], made / name, told["sha256"], file)
            adapter = adapter_files.load(made)
    return replace(adapter, folder=out)


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, when its end says that it has few entries and nothing before, between or after them."""
    try:
        n_bytes = file.stat().st_size
        if n_bytes > MAX_BUNDLE_BYTES:
            raise _unfit("it is larger than any adapter", file)
        with file.open("rb") as handle:
            handle.seek(max(0, n_bytes - END.size))
            _check_end(handle.read(), n_bytes, file)
            with zipfile.ZipFile(handle) as archive:
                yield archive
    except FileNotFoundError as error:
        raise UserError(f"There is no bundle {file}.", fix="Give the .zip that `woodshed bundle` made.") from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError, struct.error) as error:
        raise _unfit(f"it is damaged ({short(str(error))})", file) from error
    except OSError as error:
        raise UserError(f"{file.name} cannot be opened: {error.strerror}.", where=str(file)) from error


def _check_end(end: bytes, n_bytes: int, file: Path) -> None:
    if len(end) < END.size or not end.startswith(b"PK\x05\x06"):
        raise _unfit("it is no zip file, or has something after its end", file)
    _, disk, first, here, entries, size, place, comment = END.unpack(end)
    if disk or first or comment or here != entries:
        raise _unfit("it is in several parts, or has a comment", file)
    if entries > MAX_ENTRIES or size > MAX_DIRECTORY_BYTES:
        raise _unfit(f"it has {entries} entries, more than any adapter", file)
    if place + size + END.size != n_bytes:
        raise _unfit("something is hidden before or behind its entries", file)


def _checked_entries(archive: zipfile.ZipFile, file: Path) -> dict[str, zipfile.ZipInfo]:
    """Entries by name, each an ordinary stored file that an adapter may have."""
    entries = archive.infolist()
    for entry in entries:
        kind = (entry.external_attr >> 16) & 0o170000
        if entry.flag_bits & ~0x800 or entry.compress_type != zipfile.ZIP_STORED or entry.extra or entry.comment:
            raise _unfit(f"{short(entry.filename)} is packed in a way that bundles are not", file)
        if kind not in (0, 0o100000) or entry.is_dir() or entry.orig_filename != entry.filename:
            raise _unfit(f"{short(entry.filename)} is a link or a folder", file)
        if entry.compress_size != entry.file_size:
            raise _unfit(f"{short(entry.filename)} has two sizes", file)
        if entry.filename != MANIFEST:
            check_size(entry.filename, entry.file_size, str(file))
    check_number([entry.filename for entry in entries], str(file))
    if sum(entry.file_size for entry in entries) > file.stat().st_size:
        raise _unfit("its entries overlap", file)
    return {entry.filename: entry for entry in entries}


def _manifest(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], file: Path) -> dict[str, Any]:
    """The list of files with sizes and hashes, the same files as the entries."""
    if MANIFEST not in entries or entries[MANIFEST].file_size > MAX_MANIFEST_BYTES:
        raise _unfit(f"it has no {MANIFEST}", file)
    try:
        manifest = json.loads(archive.read(entries[MANIFEST]))
    except (ValueError, RecursionError) as error:
        raise _unfit(f"its {MANIFEST} is not valid JSON", file) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _unfit(f"its {MANIFEST} is not that of a bundle", file)
    if manifest.get("version") != VERSION:
        raise UserError("This bundle is of another version of Woodshed.", where=str(file), fix="Update Woodshed.")
    listed = manifest.get("files")
    if not isinstance(listed, dict) or not all(_is_line(line) for line in listed.values()):
        raise _unfit(f"its {MANIFEST} does not list files", file)
    if listed.keys() != entries.keys() - {MANIFEST} or not {WEIGHTS, CONFIG} <= listed.keys():
        raise _unfit(f"its files are not those that its {MANIFEST} lists", file)
    if any(line["bytes"] != entries[name].file_size for name, line in listed.items()):
        raise _unfit(f"its files have other sizes than its {MANIFEST} says", file)
    return listed


def _is_line(line: Any) -> bool:
    return isinstance(line, dict) and isinstance(line.get("sha256"), str) and type(line.get("bytes")) is int


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, sha256: str, file: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    digest, left = hashlib.sha256(), entry.file_size
    with archive.open(entry) as read, target.open("xb") as written:
        while left and (chunk := read.read(min(CHUNK, left))):
            written.write(chunk)
            digest.update(chunk)
            left -= len(chunk)
    if left or digest.hexdigest() != sha256:
        raise _unfit(f"{entry.filename} is not what its sender packed", file)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, DATE)
    entry.create_system, entry.external_attr = 3, 0o100644 << 16
    return entry


def _add(archive: zipfile.ZipFile, file: SharedFile) -> None:
    entry = _entry(file.name)
    entry.file_size = file.n_bytes
    with file.path.open("rb") as read, archive.open(entry, "w") as written:
        while chunk := read.read(CHUNK):
            written.write(chunk)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unfit(why: str, file: Path) -> UserError:
    return UserError(f"{file.name} is no bundle that can be opened: {why}.", where=str(file), fix="Ask for it again.")
