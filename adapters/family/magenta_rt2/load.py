"""The language model of a base, read one tensor at a time: never more than the result and one tensor in memory."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from adapters.family.magenta_rt2.lm import MagentaLM
from adapters.family.magenta_rt2.names import to_ours
from adapters.quantize import QuantKind, quantized_linear
from adapters.tensor_stream import StoredTensors

if TYPE_CHECKING:
    from data_prep.magenta_rt2.files import MagentaFiles


def load_magenta_lm(
    files: "MagentaFiles",
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    quantize: QuantKind | None = None,
) -> MagentaLM:
    """Load the language model alone, frozen, in `dtype`; int8 and nf4 hold the layers' linear maps in fewer bits.

    Raises:
        UserError: the checkpoint is damaged, incomplete or of another kind.
    """
    device = torch.device(device)
    with torch.device("meta"):
        lm = MagentaLM(files.spec)
    stored = StoredTensors([files.checkpoint])
    for name, tensor in to_ours(stored, files.spec):
        if quantize is not None and is_layer_linear(name):
            layer = quantized_linear(tensor.float().contiguous(), quantize, device, dtype)
            _put(lm, name.removesuffix(".weight"), layer)
        else:
            _put(lm, name, nn.Parameter(tensor.to(device, dtype).contiguous(), requires_grad=False))
    lm.__dict__.update(is_loaded_in_8bit=quantize == "int8", is_loaded_in_4bit=quantize == "nf4")
    return lm.eval()


def is_layer_linear(name: str) -> bool:
    """Whether a weight is a linear map inside a layer: what is quantised, and what adapters mostly sit on."""
    return ".layers." in name and name.endswith(("_proj.weight", "fc1.weight", "fc2.weight"))


def _put(lm: MagentaLM, name: str, value: nn.Module | nn.Parameter) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(lm.get_submodule(parent), leaf, value)
