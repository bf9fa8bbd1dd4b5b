"""Where a frozen model runs: `auto`, `cpu` or `cuda` becomes a device that is there; and what a CPU can do."""

from typing import TYPE_CHECKING

from configs.errors import UserError

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> "torch.device":
    """The device a setting means; `auto` is the GPU when there is one.

    Raises:
        UserError: `cuda` was asked for and there is none.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "No CUDA device can be used.",
            where="device: cuda",
            fix="Run `woodshed doctor` to see why, or set --device cpu.",
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies in bf16 by itself: AVX512-BF16, which every one with AMX has too.

    oneDNN's own answer (`_is_mkldnn_bf16_supported`) is yes for all of AVX512, where it emulates. Arm's units are not
    looked for.
    """
    import torch

    return torch.cpu._is_avx512_bf16_supported()
