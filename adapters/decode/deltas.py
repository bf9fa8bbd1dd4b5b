"""What an adapter does to one matrix, in the form that can be turned up and down: a low-rank part and a gain per row.

Plain LoRA (Hu et al. 2021): W + s·B·A. DoRA (Liu et al. 2024, arXiv:2402.09353): g ∘ (W + s·B·A) with g the learned
magnitude over the row norms of W + s·B·A. Both are W plus a difference that any strength can multiply:

    W x  +  strength · ((g − 1) ∘ W x  +  (g ∘ s·B) A x)

so a DoRA adapter can be blended and faded like any other. It reads PEFT's file layout; which base the file belongs to
is for `adapter_files` and `fit` to judge.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from configs.errors import UserError

PREFIX = "base_model.model."
_PART = re.compile(r"^(?P<module>.+?)\.(?P<part>lora_A|lora_B|lora_magnitude_vector)(\.[^.]+)??(\.weight)?$")


@dataclass(frozen=True)
class Delta:
    """An adapter's difference on one matrix [D_out, D_in]; every scale of the file is folded into `up`."""

    down: Float[Tensor, "R D_in"]
    up: Float[Tensor, "D_out R"]
    gain: Float[Tensor, " D_out"] | None = None
    """g − 1 for DoRA, None for plain LoRA."""

    def dense(self, weight: Float[Tensor, "D_out D_in"]) -> Float[Tensor, "D_out D_in"]:
        """The whole difference for this base matrix, fp32."""
        difference = self.up.float() @ self.down.float()
        return difference if self.gain is None else difference + self.gain.float()[:, None] * weight.float()


def read_deltas(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], weight_of: Callable[[str], Tensor]
) -> dict[str, Delta]:
    """Every matrix that this adapter changes, by the module name in the full model.

    `config` is PEFT's adapter_config.json; `weight_of` gives a base matrix by module name (DoRA needs its row norms).

    Raises:
        UserError: the file holds something that is no LoRA or DoRA of a linear layer.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        found = _PART.match(key.removeprefix(PREFIX))
        if found is None:
            raise UserError(
                f"the adapter holds {key}, which is no part of a LoRA",
                fix="merge it into its base with peft, and sample from the merged folder with --base",
            )
        parts.setdefault(found["module"], {})[found["part"]] = tensor
    return {module: _delta(module, found, config, weight_of) for module, found in parts.items()}


def _delta(module: str, parts: dict[str, Tensor], config: Mapping[str, Any], weight_of: Callable) -> Delta:
    if not {"lora_A", "lora_B"} <= parts.keys():
        raise UserError(f"the adapter's {module} has {sorted(parts)} but needs lora_A and lora_B", fix="save it again")
    down, up = parts["lora_A"].float(), parts["lora_B"].float()
    rank = down.shape[0]
    alpha = _pattern_value(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
    up = up * (alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)
    magnitude = parts.get("lora_magnitude_vector")
    if magnitude is None:
        return Delta(down, up)
    whole = weight_of(module).float() + up @ down
    gain = magnitude.float().flatten() / torch.linalg.vector_norm(whole, dim=1)
    return Delta(down, up * gain[:, None], gain - 1)


def _pattern_value(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """PEFT's rule: a key of rank_pattern or alpha_pattern matches the end of the module's name."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
