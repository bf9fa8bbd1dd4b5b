"""Loading a base's LM: one tensor at a time, in any precision, for every family."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adapters.family.lm import DTYPES, LM, default_compute_dtype
from adapters.family.port import family_of
from adapters.quantize import quantized_linear
from adapters.tensor_stream import StoredWeights
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
) -> LM:
    """Load the LM of a base: never more in memory than the result and one tensor.

    int8 and nf4 quantise the linear layers that the family names (those inside the blocks); the rest is in
    `compute_dtype` then (default: bf16 or fp16 on a GPU, fp32 on a CPU).

    Raises:
        UserError: a tensor is missing, unexpected, or has another shape than the configuration says.
    """
    device = torch.device(device)
    family = family_of(files)
    with torch.device("meta"):
        lm = family.build(files)
    stored = family.stored(files)
    _check_partition(lm, stored, str(files.folder))
    dtype = DTYPES.get(weights) or compute_dtype or default_compute_dtype(device)
    for name in stored:
        tensor = stored[name]
        if weights in ("int8", "nf4") and family.is_quantised(name):
            _replace(lm, name.removesuffix(".weight"), quantized_linear(tensor.float(), weights, device, dtype))
        else:
            _assign(lm, name, tensor.to(device, dtype, copy=True))
    family.complete(lm, device, dtype)
    lm.__dict__.update(is_loaded_in_8bit=weights == "int8", is_loaded_in_4bit=weights == "nf4")
    return lm.eval()


def _check_partition(lm: LM, stored: StoredWeights, where: str) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in lm.state_dict().items()}
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
