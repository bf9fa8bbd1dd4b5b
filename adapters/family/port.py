"""The port of a model family: all that the rest of Woodshed asks of an architecture.

A new family is one folder: `format.py` (its files, read without torch), its LM, and a `family.py` that holds a `Family`
called FAMILY. docs/extending.md goes through it step by step.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adapters.decode.engine import Engine, Packing
from adapters.decode.whole_sequence import WholeSequence
from adapters.family.lm import LM
from adapters.tensor_stream import StoredWeights
from data_prep.families import BUILT_IN
from data_prep.lm_spec import LMSpec

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles

_HOME = "adapters.family.{}.family"
_registered: dict[str, "Family"] = {}


class Family(ABC):
    """One architecture. Methods that have a body serve most families as they are."""

    name: str
    targets: Mapping[str, str]
    """Each group of LoRA targets as a regular expression over whole module names."""
    elsewhere: Mapping[str, str] = {}
    """First parts of module names that an adapter of others may name and this LM does not hold, and what they are."""

    @abstractmethod
    def from_spec(self, spec: LMSpec) -> LM:
        """An LM of this description, with whatever values new modules have; none under the meta device."""

    def build(self, files: "BaseFiles") -> LM:
        """The LM of a base without its weights: called under the meta device."""
        return self.from_spec(files.spec)

    @abstractmethod
    def stored(self, files: "BaseFiles") -> StoredWeights:
        """The LM's weights in a base's files."""

    @abstractmethod
    def is_quantised(self, name: str) -> bool:
        """Whether a weight of this name is held in 8 or 4 bits where the base is."""

    def parts_of(self, files: "BaseFiles", name: str) -> Sequence[str]:
        """Our names of what a tensor of the base's files holds of the LM; most families have it under that name."""
        return (name,)

    def changed(self, files: "BaseFiles", name: str, tensor: Tensor, change: Callable[[str, Tensor], Tensor]) -> Tensor:
        """A tensor of the base's files with each of its `parts_of` passed through `change(our name, weight)`."""
        return change(name, tensor)

    def whole_shapes(
        self, parts: Sequence[str], *, n_codebooks: int, card: int, hidden: int, text_width: int
    ) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the weights that are new where these parts (`LMSpec.learns_whole`) are moved."""
        return {}

    def replaced(self, parts: Sequence[str]) -> dict[str, tuple[str, float]]:
        """How the names of their weights begin, each with a weight of the base and how large they are beside it."""
        return {}

    def complete(self, lm: LM, device: torch.device, dtype: torch.dtype) -> None:  # noqa: B027
        """Make what is computed and not stored, once all weights are in place; most families have nothing such."""

    def is_embedding(self, module: str) -> bool:
        """Whether a module is a table that is looked up, and no linear layer."""
        return False

    def pack(self, lm: LM, packing: Packing) -> Engine:
        """An engine with weights of its own, laid out for decoding, adapters included; `lm` is used up."""
        return WholeSequence.pack(lm, packing)

    def borrow(self, lm: LM) -> Engine:
        """An engine around a model that stays where it is, its adapters included."""
        return WholeSequence(lm)


def register(family: Family) -> None:
    """Make a family known that does not come with Woodshed; its format goes to `data_prep.families.register`."""
    _registered[family.name] = family


def family_named(name: str) -> Family:
    """The family of this name.

    Raises:
        KeyError: there is none.
    """
    if name in _registered:
        return _registered[name]
    if name not in BUILT_IN:
        raise KeyError(name)
    return importlib.import_module(_HOME.format(name)).FAMILY


def family_of(files: "BaseFiles") -> Family:
    """The family that a base belongs to."""
    return family_named(files.format.family)
