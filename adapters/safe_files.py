"""Opening files from strangers: bounded JSON and safetensors, everything checked before a value is used.

Nothing else is ever parsed. A pickle is refused by its name and by its first bytes, because unpickling runs code. It
knows the two file formats, not what an adapter is.
"""

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from adapters.printable import short
from configs.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER_BYTES = 16 * 2**20
"""A safetensors header: about 100 bytes per tensor. The largest MusicGen with LoRA everywhere needs 0.2 MB."""
MAX_JSON_BYTES = 4 * 2**20
MAX_TENSORS = 20_000
MAX_SIDE = 2**31
"""Of a tensor. Beside a side of 0 any other would fit the file, and strides overflow."""
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Numbers an adapter may hold, in safetensors' names."""
PICKLE_NAMES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How torch's zip archives and bare pickles begin."""
LFS_START = b"version "
"""How the text begins that Git LFS leaves in place of a file (https://git-lfs.com/spec/v1). As the length of a header
it would be larger than any file."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of at most 4 MB.

    Raises:
        UserError: missing, too large, not JSON, not an object, or with a key given twice.
    """
    text = _read_bounded(path, MAX_JSON_BYTES)
    try:
        value = json.loads(text, object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"it is not valid JSON: {short(error)}") from error
    if not isinstance(value, dict):
        raise _damaged(path, "it holds no JSON object")
    return value


def read_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Tensors and metadata of a safetensors file; every number is finite.

    Raises:
        UserError: a pickle, a damaged file, a header out of bounds, or a tensor that holds NaN or infinity.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    _, metadata = check_header(path)
    tensors = {}
    try:
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (not a mapping)
                tensors[name] = opened.get_tensor(name)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise _damaged(path, short(error)) from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"The adapter holds values that are no numbers (NaN or infinity), first in {short(name)}.",
                where=str(path),
                fix="Its training went wrong: take an earlier checkpoint of it, or another adapter.",
            )
    return tensors, metadata


def check_header(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Entries (`dtype`, `shape`, `data_offsets`) and metadata of a safetensors file, without reading a tensor.

    Raises:
        UserError: a pickle, or anything in the header that does not describe exactly this file.
    """
    if path.suffix in PICKLE_NAMES:
        raise _pickled(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if start.startswith(PICKLE_STARTS) and not _starts_header(start, file, size):
                raise _pickled(path)
            if start == LFS_START:
                raise lfs_pointer(path)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > min(MAX_HEADER_BYTES, size - 8):
                raise _damaged(path, "its header is longer than the file or than any adapter's")
            header = _parse_header(path, file.read(length))
    except OSError as error:
        raise _damaged(path, short(error)) from error
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(path, "its metadata are not plain strings")
    if len(header) > MAX_TENSORS:
        raise _damaged(path, f"it holds {len(header)} tensors; no adapter has more than {MAX_TENSORS}")
    _check_entries(path, header, size - 8 - length)
    return header, metadata


def _starts_header(start: bytes, file: BinaryIO, size: int) -> bool:
    """Whether these bytes are the length of a header after all: one of 1,152 bytes begins as pickle's protocol 4 does.

    A header is JSON in braces that fills its length; a pickle of that protocol goes on with a frame, never so.
    """
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
    if length > min(MAX_HEADER_BYTES, size - 8):
        return False
    header = file.read(length)
    file.seek(8)
    return header.startswith(b"{") and header.rstrip().endswith(b"}")


def _parse_header(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is not valid: {short(error)}") from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no table of tensors")
    return header


def _check_entries(path: Path, entries: dict[str, Any], data_bytes: int) -> None:
    """The entries cover the data exactly, without gaps or overlaps, and each has the size its shape says."""
    spans = []
    for name, entry in entries.items():
        if not _is_entry(entry):
            raise _damaged(path, f"the entry of {short(name)} is not valid")
        if entry["dtype"] not in ITEM_BYTES:
            raise _damaged(path, f"{short(name)} is {short(entry['dtype'])}; adapters hold floating-point numbers")
        n_bytes = ITEM_BYTES[entry["dtype"]]
        for length in entry["shape"]:
            n_bytes *= length
        start, end = entry["data_offsets"]
        if end - start != n_bytes:
            raise _damaged(path, f"{short(name)} has another size than its shape says")
        spans.append((start, end))
    position = 0
    for start, end in sorted(spans):
        if start != position:
            raise _damaged(path, "its tensors overlap or leave gaps")
        position = end
    if position != data_bytes:
        raise _damaged(path, f"it has {data_bytes} bytes of data where its header says {position}")


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        return False
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(entry["dtype"], str) or not isinstance(shape, list) or not isinstance(offsets, list):
        return False
    sides = len(shape) <= 4 and all(type(n) is int and 1 <= n <= MAX_SIDE for n in shape)
    return sides and len(offsets) == 2 and all(type(n) is int and 0 <= n < 2**53 for n in offsets)


def _read_bounded(path: Path, limit: int) -> bytes:
    if path.exists() and not path.is_file():
        raise _damaged(path, "it is no ordinary file")  # a pipe would wait for ever
    try:
        with path.open("rb") as file:
            text = file.read(limit + 1)
    except OSError as error:
        raise _damaged(path, short(error)) from error
    if len(text) > limit:
        raise _damaged(path, f"it is larger than {limit // 2**20} MB")
    return text


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{path.name} cannot be used: {why}.", where=str(path), fix="Ask for it, or fetch it, again; do not mend it."
    )


def lfs_pointer(path: Path) -> UserError:
    """A clone without Git LFS: the file's place is taken by a line that says where it is."""
    return UserError(
        f"{path.name} is a Git LFS pointer, not the file itself.",
        where=str(path),
        fix="Run `git lfs pull` in the clone, or fetch the file from its page.",
    )


def _pickled(path: Path) -> UserError:
    return UserError(
        f"{path.name} is a pickle: loading it could run somebody's code, so it is refused.",
        where=str(path),
        fix="Ask its author for adapter_model.safetensors.",
    )
