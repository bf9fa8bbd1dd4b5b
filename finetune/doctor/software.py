"""Checks of Python and of the libraries that most often do not fit each other."""

import platform
import sys
from typing import Any

from finetune.doctor.check import Check
from finetune.doctor.probes import installed

REINSTALL_PAIR = 'uv pip install "torch>=2.11,<2.15" "torchaudio>=2.11,<2.12" (not a +cpu build)'


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Python 3.11 to 3.14."""
    found = f"{'.'.join(map(str, version))} on {platform.system()} {platform.machine()}"
    fits = (3, 11) <= version[:2] <= (3, 14)
    return Check("Python", "ok" if fits else "broken", found, "" if fits else "install Python 3.11 to 3.14")


def check_torch_pair(torch: dict[str, Any], torchaudio: dict[str, Any]) -> Check:
    """Both must load, side by side: MusicGen and peft import torchaudio, and cannot be imported where it fails."""
    found = f"torch {installed('torch')}, torchaudio {installed('torchaudio')}"
    for name, seen in (("torch", torch), ("torchaudio", torchaudio)):
        if "error" in seen:
            return Check(
                "torch and torchaudio", "broken", f"{found}; {name} does not load: {seen['error']}", REINSTALL_PAIR
            )
    return Check("torch and torchaudio", "ok", f"{found}; both load")


def check_bitsandbytes(seen: dict[str, Any]) -> Check:
    """A small tensor goes to nf4 and back. Its 16 levels keep any tensor within 15 % of its norm."""
    found = f"bitsandbytes {installed('bitsandbytes')}"
    fix = 'uv pip install "bitsandbytes>=0.50,<1"; until then leave base_weights at auto and optim.name at adamw'
    if "error" in seen:
        return Check("bitsandbytes", "broken", f"{found}: {seen['error']}", fix)
    error = seen["relative_error"]
    if not error < 0.15:
        return Check("bitsandbytes", "broken", f"{found}: nf4 is off by {error:.0%} of a tensor's norm", fix)
    return Check("bitsandbytes", "ok", f"{found}: nf4 of a small tensor on the CPU, off by {error:.1%}")
