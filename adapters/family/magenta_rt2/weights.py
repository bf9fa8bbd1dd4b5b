"""The language model's tensors of an official checkpoint under our names: each converted when it is asked for."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from adapters.family.magenta_rt2.names import owners, pieces
from adapters.tensor_stream import StoredTensors, StoredWeights
from data_prep.magenta_rt2 import layout
from data_prep.magenta_rt2.sizes import N_RESERVED, MagentaSpec

Shape = tuple[int, ...]


class MagentaWeights(StoredWeights):
    """Nothing is kept but the last official tensor: the logits of all codebooks are one."""

    def __init__(self, checkpoint: Path, spec: MagentaSpec) -> None:
        self._stored, self._spec = StoredTensors([checkpoint]), spec
        self._places = {
            ours: (theirs, number) for theirs, names in owners(spec).items() for number, ours in enumerate(names)
        }
        self._last: tuple[str, list[Tensor]] = ("", [])

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Of every tensor, as our modules have it."""
        stored = self._stored.shapes
        return {ours: _shape(theirs, stored[theirs], n, self._spec) for ours, (theirs, n) in self._places.items()}

    @property
    def dtypes(self) -> Mapping[str, torch.dtype]:
        """Of every tensor."""
        stored = self._stored.dtypes
        return {ours: stored[theirs] for ours, (theirs, _) in self._places.items()}

    def __getitem__(self, name: str) -> Tensor:
        theirs, number = self._places[name]
        if self._last[0] != theirs:
            self._last = theirs, pieces(theirs, self._stored[theirs], self._spec)
        return self._last[1][number].contiguous()

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _shape(theirs: str, stored: Shape, number: int, spec: MagentaSpec) -> Shape:
    """The shape of a piece of an official tensor, as `names.pieces` cuts it."""
    if theirs.startswith(layout.LOGITS):
        rows = N_RESERVED if number == 0 else spec.card
        return (rows, stored[0]) if theirs.endswith("/kernel") else (rows,)
    if theirs.endswith("output_projection/kernel"):
        return stored[0], math.prod(stored[1:])
    if theirs.endswith("/kernel"):
        return math.prod(stored[1:]), stored[0]
    return stored[1:] if "/sink_" in theirs else stored
