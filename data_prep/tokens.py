"""A table per clip on disk: a `datasets` folder of (id, rows of numbers), read back without copying.

Codec tokens are such tables (codes [K, T], int16, or int32 for codebooks too large for that), and so are conditions
(values [n, width], float32 or integers). It knows nothing of clips but their ids.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int, Num

CODES, VALUES = "codes", "values"
"""The column of codec tokens, and that of a condition's values."""


def write_tokens(folder: Path, ids: Sequence[str], codes: Iterable[Int[np.ndarray, "K _"]], digest: str) -> None:
    """Write the tokens of clips, in the order of `ids`, as `datasets.load_from_disk` reads them.

    They are stored as the codec gives them (`CodecSpec.code_dtype`): int16, or int32 where a codebook has 2^15 entries
    or more.

    `digest` names the content; it becomes the dataset's fingerprint, so that equal content gives equal files.
    """
    tables = list(codes)
    dtype = np.dtype(np.int32 if any(table.dtype.itemsize > 2 for table in tables) else np.int16)
    _write(folder, CODES, ids, [table.astype(dtype, copy=False) for table in tables], dtype, digest)


def write_values(folder: Path, values: Mapping[str, Num[np.ndarray, "_ _"]], dtype: np.dtype, digest: str) -> None:
    """Write a condition's values [n, width] of the clips that have any, by id; all are stored as `dtype`."""
    _write(folder, VALUES, list(values), [value.astype(dtype) for value in values.values()], dtype, digest)


def _write(
    folder: Path, column: str, ids: Sequence[str], tables: Sequence[np.ndarray], dtype: np.dtype, digest: str
) -> None:
    from datasets import Dataset, DatasetInfo, Features, List, Value

    arrays = [np.ascontiguousarray(table) for table in tables]
    values = np.concatenate([np.zeros(0, dtype), *(table.reshape(-1) for table in arrays)])
    rows = np.repeat([t.shape[1] for t in arrays], [t.shape[0] for t in arrays])  # the length of each row
    inner = pa.LargeListArray if values.size > np.iinfo(np.int32).max else pa.ListArray
    row_lists = inner.from_arrays(_offsets(rows), pa.array(values))
    tables_of_clips = pa.ListArray.from_arrays(_offsets([table.shape[0] for table in arrays]), row_lists)
    features = Features({"id": Value("string"), column: List(List(Value(str(dtype))))})
    table = pa.table({"id": pa.array(list(ids), pa.string()), column: tables_of_clips})
    dataset = Dataset(table, info=DatasetInfo(features=features), fingerprint=digest[:16])
    dataset.save_to_disk(folder, num_proc=None)


class TokenReader:
    """Random access to the tables of a folder, tokens or values: arrays are views of the memory-mapped file.

    Raises:
        ValueError, OSError: the folder is no such dataset, or damaged.
    """

    def __init__(self, folder: Path, column: str = CODES) -> None:
        from datasets import Dataset

        loaded = Dataset.load_from_disk(str(folder))
        if set(loaded.column_names) != {"id", column}:
            raise ValueError(f"expected the columns id and {column}, got {loaded.column_names}")
        table = loaded.data
        self.ids: list[str] = table.column("id").to_pylist()
        self._views: dict[str, np.ndarray] = {}
        ids = iter(self.ids)
        for chunk in table.column(column).chunks:
            self._views.update((clip_id, view) for view, clip_id in zip(_views(chunk), ids, strict=False))

    def __getitem__(self, clip_id: str) -> Num[np.ndarray, "_ _"]:
        """The table of a clip, read-only.

        Raises:
            KeyError: there is no such clip.
        """
        return self._views[clip_id]

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._views

    def __len__(self) -> int:
        return len(self._views)


def _views(chunk: pa.ListArray) -> list[Num[np.ndarray, "_ _"]]:
    """A view of the values of each clip in one Arrow chunk; all rows of a clip are equally long."""
    outer = chunk.offsets.to_numpy()
    rows = chunk.values
    inner = rows.offsets.to_numpy()
    values = rows.values.to_numpy(zero_copy_only=True)
    views = []
    for first, last in pairwise(outer):
        view = values[inner[first] : inner[last]]
        views.append(view.reshape(last - first, -1))
    return views


def _offsets(lengths: Sequence[int] | np.ndarray) -> pa.Array:
    total = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return pa.array(total, pa.int64() if total[-1] > np.iinfo(np.int32).max else pa.int32())
