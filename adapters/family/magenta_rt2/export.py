"""A changed language model in the official layout, which the official package and its exporters read.

The checkpoint passes through one tensor at a time; what is not the language model (the codec beside it) stays as it is.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from adapters import tensor_stream
from adapters.family.magenta_rt2.names import assemble, owners, pieces
from configs.errors import UserError
from data_prep.magenta_rt2.files import MagentaFiles

Change = Callable[[str, Tensor], Tensor]
"""Given one of our names and its weight in fp32, the weight that is to be written; the same shape."""


def write_changed(
    files: MagentaFiles, out: Path, change: Change, *, dtype: torch.dtype | None = None, resources: bool = True
) -> Path:
    """Write a base with every weight of the language model passed through `change`; returns its checkpoint.

    `dtype` is that of the language model's tensors, by default each keeps its own. With `resources` the codec's and
    the style model's files are copied, so that the folder is a base of its own.

    Raises:
        UserError: `out` is there already, or the checkpoint is damaged.
    """
    if out.exists():
        raise UserError(f"{out} is there already.", fix="Choose a folder that does not exist yet.")
    spec, owned = files.spec, owners(files.spec)

    def dtype_of(name: str, stored: torch.dtype) -> torch.dtype:
        return dtype if dtype is not None and name in owned else stored

    def rewritten(name: str, tensor: Tensor) -> Tensor:
        if name not in owned:
            return tensor
        parts = pieces(name, tensor.float(), spec)
        changed = [change(mine, part) for mine, part in zip(owned[name], parts, strict=True)]
        return assemble(name, changed, spec).to(dtype_of(name, tensor.dtype))

    building = out.with_name(f".{out.name}.partial")
    shutil.rmtree(building, ignore_errors=True)
    target = building / "checkpoints" / files.checkpoint.name
    target.parent.mkdir(parents=True)
    try:
        tensor_stream.rewrite(files.checkpoint, target, dtype_of, rewritten)
        if resources and (files.folder / "resources").is_dir():
            shutil.copytree(files.folder / "resources", building / "resources")
        building.rename(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return out / "checkpoints" / files.checkpoint.name


def write_weights(files: MagentaFiles, out: Path, weights: Mapping[str, Tensor], **given) -> Path:
    """Write a base with these weights, by our names; those that are not given stay as they are.

    Raises:
        UserError: as `write_changed`.
        KeyError: a name is none of the model's.
    """
    known = {mine for names in owners(files.spec).values() for mine in names}
    if strange := weights.keys() - known:
        raise KeyError(f"no weights of this model: {sorted(strange)[:3]}")
    return write_changed(files, out, lambda name, stored: weights.get(name, stored).float(), **given)
