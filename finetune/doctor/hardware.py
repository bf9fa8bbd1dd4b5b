"""Checks of the GPU and of the disk."""

import os
import platform
import shutil
from pathlib import Path
from typing import Any

from finetune.doctor.check import Check

GIB = 2**30
NEEDED_DISK_BYTES = 10 * GIB
"""musicgen-medium is 8 GB on the hub; a prepared hour of music and a run add well under one."""
LEAST_GPU_BYTES = 4 * GIB
"""musicgen-medium in nf4 is predicted at 2 GiB for 30 s clips in batches of two; a desktop takes its share too."""

LINUX_TORCH = 'this torch is built without CUDA; with an NVIDIA GPU: uv pip install "torch>=2.11,<2.15"'
WINDOWS_TORCH = (
    "the package index has torch for Windows without CUDA only; with an NVIDIA GPU, take it from its maker: "
    'uv pip install --no-config --torch-backend=auto --reinstall "torch>=2.11,<2.15" "torchaudio>=2.11,<2.12"; '
    "then `setx UV_NO_SYNC 1` and a new terminal, or the next `uv run` puts the other one back"
)
"""Both ways are in README.md. No index is named in pyproject.toml: it would have to be reachable for everybody."""


def check_cuda(torch: dict[str, Any]) -> Check:
    """A GPU is no must: a machine without one is told so."""
    if "error" in torch:
        return Check("CUDA", "note", "unknown: torch does not load", "mend torch first")
    if torch["cuda"]:
        return Check("CUDA", "ok", f"{torch['device']}, torch built for CUDA {torch['built_for']}")
    if torch["built_for"] is None:
        fix = WINDOWS_TORCH if platform.system() == "Windows" else LINUX_TORCH
        return Check("CUDA", "note", "no GPU: everything runs on the CPU, slowly", fix)
    fix = "with an NVIDIA GPU in this machine: install or update its driver (`nvidia-smi` must list it)"
    return Check("CUDA", "note", f"no GPU seen (torch is built for CUDA {torch['built_for']}): the CPU is used", fix)


def check_bf16(torch: dict[str, Any]) -> Check:
    """bf16 needs no loss scaling."""
    if not torch.get("cuda"):
        arithmetic = "bf16, in hardware" if torch.get("cpu_bf16") else "fp32: this CPU has no bf16 units"
        return Check("bf16", "note", f"no GPU: training on the CPU uses {arithmetic}")
    if torch["bf16"]:
        return Check("bf16", "ok", "in hardware")
    return Check(
        "bf16",
        "note",
        "this GPU has none: fp16 with loss scaling is used",
        "nothing to do; --precision fp32 if loss turns NaN",
    )


def check_gpu_memory(torch: dict[str, Any]) -> Check:
    """Free memory now, not the size of the card."""
    if not torch.get("cuda"):
        return Check("GPU memory", "note", "no GPU")
    free, total = torch["free_bytes"], torch["total_bytes"]
    found = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free < LEAST_GPU_BYTES:
        fix = "close what uses the GPU (`nvidia-smi` lists it), or use --base facebook/musicgen-small --preset 6gb"
        return Check("GPU memory", "broken", found, fix)
    return Check("GPU memory", "ok", found)


def check_disk(name: str, folder: Path) -> Check:
    """Room where data and runs are written, or where downloaded models are kept."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / GIB:.0f} GiB free at {folder}"
    if not os.access(there, os.W_OK):
        return Check(
            name,
            "broken",
            f"{found}, which cannot be written",
            "choose another folder, or set HF_HOME for the model cache",
        )
    if free < NEEDED_DISK_BYTES:
        return Check(
            name,
            "broken",
            found,
            f"free {NEEDED_DISK_BYTES // GIB} GiB, or set HF_HOME to another disk for the model cache",
        )
    return Check(name, "ok", found)
