"""Magenta RealTime 2 (google/magenta-realtime-2): 48 kHz stereo, 25 frames a second, style, notes and drums."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from adapters.decode.engine import Engine, Packing
from adapters.family.lm import LM
from adapters.family.magenta_rt2.engine import MagentaEngine
from adapters.family.magenta_rt2.lm import MagentaLM
from adapters.family.magenta_rt2.names import assemble, owners, pieces
from adapters.family.magenta_rt2.spec import ALIASES, GROUPS, MagentaLMSpec
from adapters.family.magenta_rt2.spec import FAMILY as NAME
from adapters.family.magenta_rt2.weights import MagentaWeights
from adapters.family.port import Family
from data_prep.lm_spec import LMSpec
from data_prep.magenta_rt2.files import find_files
from data_prep.magenta_rt2.sizes import MagentaSpec

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles


class MagentaFamily(Family):
    """The stack over frames, the stack over levels, and what embeds the conditions."""

    name = NAME
    targets = {**GROUPS, **{alias: "|".join(GROUPS[group] for group in ALIASES[alias]) for alias in ALIASES}}  # noqa: RUF012

    def from_spec(self, spec: LMSpec) -> LM:
        """A model of the sizes that the description holds."""
        return MagentaLM(_sizes(spec))

    def stored(self, files: "BaseFiles") -> MagentaWeights:
        """The checkpoint's tensors, converted as they are read."""
        found = find_files(files.folder)
        return MagentaWeights(found.checkpoint, found.spec)

    def is_quantised(self, name: str) -> bool:
        """The linear layers inside both stacks."""
        return ".layers." in name and name.endswith(("_proj.weight", "fc1.weight", "fc2.weight"))

    def is_embedding(self, module: str) -> bool:
        """The tables of codes, of styles and of controls."""
        return module in ("codes", "source.style", "source.controls")

    def parts_of(self, files: "BaseFiles", name: str) -> Sequence[str]:
        """The codec beside the language model is none of its parts."""
        return owners(_sizes_in(files)).get(name, ())

    def changed(self, files: "BaseFiles", name: str, tensor: Tensor, change: Callable[[str, Tensor], Tensor]) -> Tensor:
        """Every piece in our shape, and back."""
        spec = _sizes_in(files)
        parts = zip(owners(spec)[name], pieces(name, tensor, spec), strict=True)
        return assemble(name, [change(mine, piece) for mine, piece in parts], spec)

    def pack(self, lm: LM, packing: Packing) -> Engine:
        """Its own engine: rings, and one product after another in the arithmetic that pays."""
        assert isinstance(lm, MagentaLM)
        return MagentaEngine.pack(lm, packing)

    def borrow(self, lm: LM) -> Engine:
        """Its own engine around the model's own modules."""
        assert isinstance(lm, MagentaLM)
        return MagentaEngine(lm)


def _sizes_in(files: "BaseFiles") -> MagentaSpec:
    """Asked for every tensor that is written; held by the description of the base, which is read once."""
    return _sizes(files.spec)


def _sizes(spec: LMSpec) -> MagentaSpec:
    assert isinstance(spec, MagentaLMSpec)
    return spec.sizes


FAMILY = MagentaFamily()
