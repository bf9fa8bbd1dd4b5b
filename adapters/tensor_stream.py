"""safetensors files one tensor at a time, in and out, so that a model larger than memory can pass through.

The format: 8 bytes of header length, a JSON header, then the data (https://github.com/huggingface/safetensors). The
library maps files into memory, where what was touched stays counted; here a tensor is read, used and gone.
"""

import json
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from adapters.printable import short
from adapters.safe_files import LFS_START, lfs_pointer
from configs.errors import UserError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
ENTRY = {"dtype", "shape", "data_offsets"}
"""What a header tells of each tensor."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class StoredWeights(Mapping[str, Tensor], ABC):
    """The LM's tensors under the names of its modules, each read when it is asked for; `shapes` costs no reading."""

    @property
    @abstractmethod
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of every tensor."""

    @property
    @abstractmethod
    def dtypes(self) -> Mapping[str, torch.dtype]:
        """Of every tensor."""


class StoredTensors(StoredWeights):
    """The tensors of some files by name, each read when it is asked for and not kept. `shapes` costs no reading."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._places: dict[str, tuple[Path, dict[str, Any], int]] = {}
        for path in paths:
            with path.open("rb") as file:
                entries, _, data_start = read_header(file)
            self._places |= {name: (path, entry, data_start) for name, entry in entries.items()}

    @property
    def dtypes(self) -> dict[str, torch.dtype]:
        """Of every tensor."""
        return {name: DTYPES[entry["dtype"]] for name, (_, entry, _) in self._places.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor."""
        return {name: tuple(entry["shape"]) for name, (_, entry, _) in self._places.items()}

    def __getitem__(self, name: str) -> Tensor:
        path, entry, data_start = self._places[name]
        with path.open("rb") as file:
            return read_tensor(file, entry, data_start)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def only(self, names: Iterable[str]) -> "StoredTensors":
        """The same with those names alone that are there."""
        part = StoredTensors([])
        part._places = {name: self._places[name] for name in names if name in self._places}
        return part


def read_header(file: BinaryIO) -> tuple[dict[str, dict[str, Any]], dict[str, str], int]:
    """Entries by tensor name, metadata, and where the data start.

    Raises:
        UserError: a Git LFS pointer, or no safetensors file.
    """
    path = Path(file.name)
    start, size = file.read(8), path.stat().st_size
    if start == LFS_START:
        raise lfs_pointer(path)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
    if length > size - 8:
        raise _damaged(path, "it is empty or cut off" if size < 8 else "its header is longer than the file")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is not valid: {short(error)}") from error
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else {}
    if not isinstance(header, dict) or not all(isinstance(e, dict) and e.keys() >= ENTRY for e in header.values()):
        raise _damaged(path, "its header is no table of tensors")
    return header, metadata, 8 + length


def read_tensor(file: BinaryIO, entry: dict[str, Any], data_start: int) -> Tensor:
    """One tensor, in memory of its own.

    Raises:
        UserError: the file ends before it.
    """
    start, end = entry["data_offsets"]
    file.seek(data_start + start)
    buffer = bytearray(file.read(end - start))
    if len(buffer) != end - start:
        raise _damaged(Path(file.name), "it ends inside a tensor")
    dtype = DTYPES[entry["dtype"]]
    flat = torch.frombuffer(buffer, dtype=dtype) if buffer else torch.empty(0, dtype=dtype)
    return flat.reshape(entry["shape"])


Layout = Mapping[str, tuple[torch.dtype, Sequence[int]]]
"""dtype and shape of each tensor of a file, in the order they are written."""


def write(
    target: Path, layout: Layout, tensor_of: Callable[[str], Tensor], metadata: Mapping[str, str]
) -> dict[str, int]:
    """Write `target` with `tensor_of(name)` for each tensor of the layout; bytes per tensor.

    One tensor is in memory at a time.
    """
    header, sizes = _plan(layout)
    text = json.dumps({"__metadata__": {"format": "pt", **metadata}, **header}, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as written:
        written.write(struct.pack("<Q", len(text)) + text)
        for name, (dtype, shape) in layout.items():
            tensor = tensor_of(name)
            assert tensor.dtype == dtype and tuple(tensor.shape) == tuple(shape), name
            for piece in _pieces(tensor):
                written.write(piece)
    return sizes


def rewrite(source: Path, target: Path, dtype_of: Callable[[str, torch.dtype], torch.dtype], change) -> dict[str, int]:
    """Write `target` with every tensor of `source` passed through `change(name, tensor)`; bytes per tensor.

    `dtype_of(name, dtype)` says in which dtype `change` will hand a tensor back; shapes stay. Peak memory is one tensor
    before and after.
    """
    with source.open("rb") as read:
        entries, metadata, data_start = read_header(read)
        order = sorted(entries, key=lambda name: entries[name]["data_offsets"])
        layout = {n: (dtype_of(n, DTYPES[entries[n]["dtype"]]), entries[n]["shape"]) for n in order}
        return write(target, layout, lambda name: change(name, read_tensor(read, entries[name], data_start)), metadata)


def _plan(layout: Layout) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    header, sizes, position = {}, {}, 0
    for name, (dtype, shape) in layout.items():
        sizes[name] = torch.Size(shape).numel() * dtype.itemsize
        offsets = [position, position + sizes[name]]
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": offsets}
        position += sizes[name]
    return header, sizes


def _pieces(tensor: Tensor) -> Iterator[memoryview]:
    if tensor.numel():
        yield tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path.name} cannot be read: {why}.", where=str(path), fix="Fetch or copy it again.")
