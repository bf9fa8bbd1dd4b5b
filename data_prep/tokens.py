"""The token dataset on disk: a `datasets` folder of (id, codes [K, T] as int16), read back without copying.

It knows nothing of clips but their ids.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int16


def write_tokens(folder: Path, ids: Sequence[str], codes: Iterable[Int16[np.ndarray, "K _"]], digest: str) -> None:
    """Write the tokens of clips, in the order of `ids`, as `datasets.load_from_disk` reads them.

    `digest` names the content; it becomes the dataset's fingerprint, so that equal content gives equal files.
    """
    from datasets import Dataset, DatasetInfo, Features, List, Value

    arrays = [np.ascontiguousarray(clip) for clip in codes]
    values = np.concatenate([clip.reshape(-1) for clip in arrays])
    rows = np.repeat([clip.shape[1] for clip in arrays], [clip.shape[0] for clip in arrays])  # T of each row of tokens
    inner = pa.LargeListArray if values.size > np.iinfo(np.int32).max else pa.ListArray
    row_lists = inner.from_arrays(_offsets(rows), pa.array(values))
    clip_lists = pa.ListArray.from_arrays(_offsets([clip.shape[0] for clip in arrays]), row_lists)
    features = Features({"id": Value("string"), "codes": List(List(Value("int16")))})
    table = pa.table({"id": pa.array(list(ids), pa.string()), "codes": clip_lists})
    dataset = Dataset(table, info=DatasetInfo(features=features), fingerprint=digest[:16])
    dataset.save_to_disk(folder, num_proc=None)


class TokenReader:
    """Random access to the tokens of a folder: arrays are views of the memory-mapped file.

    Raises:
        ValueError, OSError: the folder is no such dataset, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        from datasets import Dataset

        loaded = Dataset.load_from_disk(str(folder))
        if set(loaded.column_names) != {"id", "codes"}:
            raise ValueError(f"expected the columns id and codes, got {loaded.column_names}")
        table = loaded.data
        self.ids: list[str] = table.column("id").to_pylist()
        self._views: dict[str, Int16[np.ndarray, "K T"]] = {}
        ids = iter(self.ids)
        for chunk in table.column("codes").chunks:
            self._views.update((clip_id, view) for view, clip_id in zip(_views(chunk), ids, strict=False))

    def __getitem__(self, clip_id: str) -> Int16[np.ndarray, "K T"]:
        """The tokens of a clip, read-only.

        Raises:
            KeyError: there is no such clip.
        """
        return self._views[clip_id]

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._views

    def __len__(self) -> int:
        return len(self._views)


def _views(chunk: pa.ListArray) -> list[Int16[np.ndarray, "K _"]]:
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
