"""The files that an adapter may be made of when it leaves a machine or comes to one. Nothing else travels.

Limits are far above what real adapters need, and low enough that a stranger's cannot fill a disk.
"""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from adapters.adapter_files import CARD, CONDITIONS, CONFIG, DESCRIPTION, WEIGHTS
from adapters.printable import short
from configs.errors import UserError

MIB = 2**20
MAX_BYTES = {WEIGHTS: 2**31, CONFIG: 4 * MIB, DESCRIPTION: 4 * MIB, CARD: MIB, CONDITIONS: 2**31}
"""The files and how large each may be. A rank of 256 on every layer of the 3.3 B model takes 1.6 GB in fp16."""
SAMPLE = re.compile(r"samples/[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}\.(wav|flac|mp3|ogg|opus)")
MAX_SAMPLE_BYTES, MAX_SAMPLES = 64 * MIB, 64
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows gives to devices."""


@dataclass(frozen=True)
class SharedFile:
    """One file of an adapter: its name within the folder, with forward slashes, and its size."""

    name: str
    path: Path
    n_bytes: int


def shared_files(folder: Path) -> list[SharedFile]:
    """What of a folder is the adapter, sorted; everything else in it stays at home.

    Raises:
        UserError: a link, a special file, or one that is larger than it may be.
    """
    found = []
    for path in [*(folder / name for name in MAX_BYTES), *sorted((folder / "samples").glob("*"))]:
        name = path.relative_to(folder).as_posix()
        if limit_of(name) is None or not (path.exists() or path.is_symlink()):
            continue
        if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
            raise UserError(f"{name} is a link or no ordinary file, so it is not shared.", where=str(path))
        file = SharedFile(name, path, path.stat().st_size)
        check_size(file.name, file.n_bytes, str(folder))
        found.append(file)
    check_number([file.name for file in found], str(folder))
    return sorted(found, key=lambda file: file.name)


def limit_of(name: str) -> int | None:
    """How many bytes a file of this name may have; None for a name that no adapter has."""
    if SAMPLE.fullmatch(name) and not DEVICES.fullmatch(name.partition("/")[2]):
        return MAX_SAMPLE_BYTES
    return MAX_BYTES.get(name)


def check_size(name: str, n_bytes: int, where: str) -> None:
    """Refuse a file that no adapter has, or has so large.

    Raises:
        UserError: which, and its limit.
    """
    limit = limit_of(name)
    if limit is None:
        raise UserError(f"{short(name)} is no file of an adapter.", where=where)
    if not 0 <= n_bytes <= limit:
        raise UserError(f"{name} has {n_bytes} bytes; an adapter's has at most {limit}.", where=where)


def check_number(names: list[str], where: str) -> None:
    """Refuse names that are the same on some systems, and folders of hundreds of samples; other files are few anyway.

    Raises:
        UserError: which.
    """
    seen: dict[str, str] = {}
    for name in names:
        same = unicodedata.normalize("NFKC", name).casefold()
        if same in seen:
            raise UserError(f"{short(name)} and {short(seen[same])} are the same file here.", where=where)
        seen[same] = name
    n_samples = sum(name.startswith("samples/") for name in names)
    if n_samples > MAX_SAMPLES:
        raise UserError(f"It has {n_samples} samples; an adapter has at most {MAX_SAMPLES}.", where=where)


def size_text(n_bytes: int) -> str:
    """`4.2 MB`, for people."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.1f} {unit}"
    return f"{n_bytes} bytes"
