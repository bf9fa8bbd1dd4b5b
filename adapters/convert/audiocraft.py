"""A MusicGen LM in audiocraft's form and back, one tensor at a time; adapters are merged on the way.

audiocraft's own checkpoints are pickles, which run code when they are read. We write and read the same tensors as
safetensors, and say in the folder's README how to turn them into the pickle that audiocraft's loader wants, and how to
turn such a pickle, where its source is trusted, into a file for us.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from adapters.convert.audiocraft_config import readme, xp_cfg
from adapters.convert.audiocraft_names import CHROMA_WINDOW, packing
from adapters.family.lm import DTYPES
from adapters.family.musicgen_melody.format import MelodySpec
from adapters.family.port import family_of
from adapters.fit import check_fit
from adapters.low_rank import merged_weight
from adapters.merge import copy_rest
from adapters.safe_files import check_header
from adapters.tensor_stream import StoredTensors, StoredWeights, rewrite, write
from configs.errors import UserError
from data_prep.safe_write import check_new, folder_beside

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
        UserError: `out` is there already, an adapter does not fit, it is no MusicGen, or the disk is full
            or refuses.
    """
    check_new(out)
    for adapter, _ in adapters:
        check_fit(adapter, files, force=force)
    stored = family_of(files).stored(files)
    names, dtypes, shapes = packing(stored), stored.dtypes, stored.shapes

    def dtype_of(parts: Sequence[str]) -> torch.dtype:
        return dtypes[parts[0]] if dtype == "base" else DTYPES[dtype]

    @torch.no_grad()
    def tensor_of(theirs: str) -> Tensor:
        if theirs == CHROMA_WINDOW:
            return torch.hann_window(_n_fft(files))
        parts = [_merged(name, stored[name], adapters) for name in names[theirs]]
        return torch.cat(parts).to(dtype_of(names[theirs]))  # q, k, v: [3 * D, D]

    layout = {
        theirs: (dtype_of(parts), (sum(shapes[part][0] for part in parts), *shapes[parts[0]][1:]))
        for theirs, parts in sorted(names.items())
    }
    if isinstance(files.spec, MelodySpec):
        layout[CHROMA_WINDOW] = (torch.float32, (_n_fft(files),))
    with folder_beside(out) as made:
        write(made / STATE, layout, tensor_of, {})
        (made / CONFIG).write_text(xp_cfg(files), encoding="utf-8")
        (made / "README.md").write_text(readme(files, STATE, CONFIG), encoding="utf-8")


def from_audiocraft(state: Path, files: "BaseFiles", out: Path) -> None:
    """Write a folder that transformers loads: the LM from `state`, everything else from `files`, a base of that size.

    Weights keep the base's dtype.

    Raises:
        UserError: a pickle, tensors other than this base has in audiocraft's form, or the disk refuses.
    """
    check_new(out)
    check_header(state)
    stored, ours = StoredTensors([state]), family_of(files).stored(files)
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

    with folder_beside(out) as made:
        copy_rest(files, made, "base")
        _write_shards(files, made, change)


def _n_fft(files: "BaseFiles") -> int:
    """Samples of the chroma's transform."""
    assert isinstance(files.spec, MelodySpec)
    return files.spec.chroma.n_fft


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


def _check_same(stored: StoredTensors, names: dict[str, list[str]], ours: StoredWeights, state: Path) -> None:
    shapes, theirs_shapes = ours.shapes, stored.shapes
    theirs_shapes = {name: shape for name, shape in theirs_shapes.items() if name != CHROMA_WINDOW}
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
