"""A MusicGen LM in audiocraft's form and back, one tensor at a time; adapters are merged on the way.

audiocraft's own checkpoints are pickles, which run code when they are read. We write and read the same tensors as
safetensors, and say in the folder's README how to turn them into the pickle that audiocraft's loader wants, and how to
turn such a pickle, where its source is trusted, into a file for us.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from adapters.convert.audiocraft_config import readme, xp_cfg
from adapters.convert.audiocraft_names import packing
from adapters.family.lm import DTYPES
from adapters.family.musicgen.family import FAMILY
from adapters.fit import check_fit
from adapters.merge import copy_rest, merged_weight
from adapters.safe_files import check_header
from adapters.tensor_stream import StoredTensors, rewrite, write
from configs.errors import UserError

if TYPE_CHECKING:
    from adapters.merge import Strengths
    from data_prep.base_files import BaseFiles

STATE, CONFIG = "state_dict.safetensors", "xp_cfg.yaml"


def to_audiocraft(
    files: "BaseFiles",
    adapters: "Strengths",
    out: Path,
    *,
    dtype: Literal["base", "fp32", "bf16", "fp16"] = "base",
    force: bool = False,
) -> None:
    """Write the model, with adapters merged in, as a folder for audiocraft: state_dict.safetensors and xp_cfg.yaml.

    Raises:
        UserError: `out` is there already, an adapter does not fit, or it is no text-to-music MusicGen.
    """
    for adapter, _ in adapters:
        check_fit(adapter, files, force=force)
    stored = FAMILY.stored(files)
    names, dtypes, shapes = packing(stored), stored.dtypes, stored.shapes

    def dtype_of(parts: Sequence[str]) -> torch.dtype:
        return dtypes[parts[0]] if dtype == "base" else DTYPES[dtype]

    @torch.no_grad()
    def tensor_of(theirs: str) -> Tensor:
        parts = [_merged(name, stored[name], adapters) for name in names[theirs]]
        return torch.cat(parts).to(dtype_of(names[theirs]))  # q, k, v: [3 * D, D]

    layout = {
        theirs: (dtype_of(parts), (sum(shapes[part][0] for part in parts), *shapes[parts[0]][1:]))
        for theirs, parts in sorted(names.items())
    }
    with new_folder(out) as made:
        write(made / STATE, layout, tensor_of, {})
        (made / CONFIG).write_text(xp_cfg(files), encoding="utf-8")
        (made / "README.md").write_text(readme(files, STATE, CONFIG), encoding="utf-8")


def from_audiocraft(state: Path, files: "BaseFiles", out: Path) -> None:
    """Write a folder that transformers loads: the LM from `state`, everything else from `files`, a base of that size.

    Weights keep the base's dtype.

    Raises:
        UserError: a pickle, or tensors other than this base has in audiocraft's form.
    """
    check_header(state)
    stored, ours = StoredTensors([state]), FAMILY.stored(files)
    names = packing(ours)
    _check_same(stored, names, ours, state)
    places = {name: (theirs, number) for theirs, parts in names.items() for number, name in enumerate(parts)}

    def change(name: str, tensor: Tensor) -> Tensor:
        if name not in places:
            return tensor
        theirs, number = places[name]
        rows = tensor.shape[0]
        part = stored[theirs][number * rows : (number + 1) * rows]
        if not torch.isfinite(part).all():
            raise UserError(f"{theirs} holds values that are no numbers.", where=str(state))
        return part.to(tensor.dtype)

    with new_folder(out) as made:
        copy_rest(files, made, "base")
        _write_shards(files, made, change)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that appears at `out` when the block has ended without an error, and never in part.

    Raises:
        UserError: `out` is there already.
    """
    if out.exists():
        raise UserError(f"{out} is there already.", fix="Choose a folder that does not exist yet.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as beside:
        made = Path(beside) / "made"
        made.mkdir()
        yield made
        made.rename(out)


def _merged(name: str, weight: Tensor, adapters: "Strengths") -> Tensor:
    module = name.removesuffix(".weight")
    updates = [(adapter.updates[module], s) for adapter, s in adapters if module in adapter.updates and module != name]
    return merged_weight(weight, updates) if updates else weight


def _write_shards(files: "BaseFiles", made: Path, change) -> None:
    index = files.folder / "model.safetensors.index.json"
    for shard in files.weight_files:
        rewrite(shard, made / shard.name, lambda _, dtype: dtype, change)
    if index.exists():
        (made / index.name).write_bytes(index.read_bytes())


def _check_same(stored: StoredTensors, names: dict[str, list[str]], ours: StoredTensors, state: Path) -> None:
    shapes, theirs_shapes = ours.shapes, stored.shapes
    wanted = {
        theirs: (sum(shapes[part][0] for part in parts), *shapes[parts[0]][1:]) for theirs, parts in names.items()
    }
    problems = [f"it has no {name}" for name in wanted.keys() - theirs_shapes.keys()]
    problems += [f"it has {name}, which the base has no place for" for name in theirs_shapes.keys() - wanted.keys()]
    problems += [
        f"{name} is {list(theirs_shapes[name])}, the base's is {list(shape)}"
        for name, shape in wanted.items()
        if name in theirs_shapes and theirs_shapes[name] != shape
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
        raise UserError(
            f"This is not the LM of such a base: {min(problems)}{more}.",
            where=str(state),
            fix="Give a base of the same size, e.g. --base facebook/musicgen-small.",
        )
