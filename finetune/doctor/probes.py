"""Looks at heavy libraries from a process of their own, so that one which cannot load, or crashes, is a finding.

Run as `python -m finetune.doctor.probes NAME`: prints one line of JSON.
"""

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

TIMEOUT_SEC = 120


def probe(name: str) -> dict[str, Any]:
    """Run one probe in a new process; `error` in the answer says why it failed."""
    command = [sys.executable, "-m", "finetune.doctor.probes", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SEC, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {TIMEOUT_SEC} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}


def installed(package: str) -> str | None:
    """The version of a package by its metadata alone, without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def probe_torch() -> dict[str, Any]:
    """Whether torch loads, and the GPU it sees. Memory in bytes."""
    import torch

    from data_prep.device import cpu_has_bf16

    seen: dict[str, Any] = {"built_for": torch.version.cuda, "cuda": torch.cuda.is_available()}
    seen["cpu_bf16"] = cpu_has_bf16()
    if seen["cuda"]:
        seen["device"] = torch.cuda.get_device_name()
        seen["bf16"] = torch.cuda.is_bf16_supported(including_emulation=False)
        seen["free_bytes"], seen["total_bytes"] = torch.cuda.mem_get_info()
        torch.ones(8, device="cuda").sum().item()
    return seen


def probe_torchaudio() -> dict[str, Any]:
    """Whether torchaudio loads beside this torch and computes."""
    import torch
    import torchaudio.functional

    resampled = torchaudio.functional.resample(torch.ones(1, 640), 32000, 16000)  # [1, 320]
    return {"samples": resampled.shape[-1]}


def probe_bitsandbytes() -> dict[str, Any]:
    """How far 4-bit quantisation of a small tensor on the CPU is from the tensor, as a share of its norm."""
    import bitsandbytes.functional as quantisation
    import torch

    weights = torch.linspace(-1, 1, 4096).reshape(64, 64)
    packed, state = quantisation.quantize_4bit(weights, quant_type="nf4")
    restored = quantisation.dequantize_4bit(packed, state)
    return {"relative_error": ((restored - weights).norm() / weights.norm()).item(), "packed_bytes": packed.numel()}


PROBES = {"torch": probe_torch, "torchaudio": probe_torchaudio, "bitsandbytes": probe_bitsandbytes}


if __name__ == "__main__":
    print(json.dumps(PROBES[sys.argv[1]]()))
