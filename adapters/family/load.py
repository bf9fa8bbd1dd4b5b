"""Loading a base's LM: one tensor at a time, in any precision, for every family."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adapters.family.lm import DTYPES, LM, default_compute_dtype
from adapters.family.port import family_of
from adapters.quantize import quantized_linear
from adapters.tensor_stream import StoredTensors, StoredWeights
from adapters.whole_weights.layers import install
from adapters.whole_weights.start import start_values
from configs.errors import UserError
from configs.precisions import BaseWeights

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles


def load_lm(
    files: "BaseFiles",
    *,
    weights: BaseWeights = "fp32",
    device: torch.device | str = "cpu",
    compute_dtype: torch.dtype | None = None,
    whole: Mapping[str, Tensor] | None = None,
) -> LM:
    """Load the LM of a base: never more in memory than the result and one tensor.

    Where the base is moved (`BaseFiles.move`), weights that are new have the values of `whole`, which an adapter
    brings, or their first values.

    int8 and nf4 quantise the linear layers that the family names (those inside the blocks); the rest is in
    `compute_dtype` then (default: bf16 or fp16 on a GPU, fp32 on a CPU).

    Raises:
        UserError: a tensor is missing, unexpected, or has another shape than the configuration says.
    """
    device = torch.device(device)
    family = family_of(files)
    with torch.device("meta"):
        lm = family.build(files)
    spec = files.spec
    parts = spec.learns_whole
    new = family.whole_shapes(
        parts, n_codebooks=spec.n_codebooks, card=spec.card, hidden=spec.hidden, text_width=spec.text_width
    )
    replaced = family.replaced(parts)
    everything = family.stored(files)
    stored: StoredWeights = everything
    if parts:
        assert isinstance(everything, StoredTensors), "only checkpoints under the LM's own names can be moved"
        stored = everything.only(name for name in everything if not name.startswith(tuple(replaced)))
    _check_partition(lm, stored, str(files.folder), new)
    dtype = DTYPES.get(weights) or compute_dtype or default_compute_dtype(device)
    for name in stored:
        tensor = stored[name]
        if weights in ("int8", "nf4") and family.is_quantised(name):
            _replace(lm, name.removesuffix(".weight"), quantized_linear(tensor.float(), weights, device, dtype))
        else:
            _assign(lm, name, tensor.to(device, dtype, copy=True))
    if new:
        install(lm, whole if whole is not None else start_values(new, everything, replaced), device, dtype)
    family.complete(lm, device, dtype)
    lm.__dict__.update(is_loaded_in_8bit=weights == "int8", is_loaded_in_4bit=weights == "nf4")
    return lm.eval()


def _check_partition(lm: LM, stored: StoredWeights, where: str, new: Collection[str] = ()) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in lm.state_dict().items() if name not in new}
    shapes = stored.shapes
    problems = [f"missing: {name}" for name in sorted(expected.keys() - shapes.keys())]
    problems += [f"unexpected: {name}" for name in sorted(shapes.keys() - expected.keys())]
    for name in sorted(expected.keys() & shapes.keys()):
        if shapes[name] != expected[name]:
            problems.append(f"{name}: shape {list(shapes[name])}, the configuration says {list(expected[name])}")
    if problems:
        more = f"\n  and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise UserError(
            "The base's weights do not fit its config.json:\n  " + "\n  ".join(problems[:8]) + more,
            where=where,
            fix="Fetch or export the base again: its config.json and its weights are from different models.",
        )


def _assign(lm: LM, name: str, tensor: Tensor) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(lm.get_submodule(parent), leaf, nn.Parameter(tensor, requires_grad=False))


def _replace(lm: LM, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(lm.get_submodule(parent), leaf, module)
