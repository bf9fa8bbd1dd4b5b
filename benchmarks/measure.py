"""How every benchmark here measures: one clock, one order, one way to say that two things differ.

Cases are run in turn, in reversed order every second round, so that a machine that slows down slows all of them; the
first round is thrown away. The first case is run twice per round under two names (A/A): how far apart those two come
out is the noise, and no difference below it is claimed. On a CPU the clock is the process's own time on one thread,
which other programs disturb least; on a GPU it is CUDA events.
"""

import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROUNDS = 6
"""One more than is kept."""
AGAIN = " (again)"


@dataclass(frozen=True)
class Measured:
    """What a case returns that has timed itself, because only a part of what it did counts."""

    seconds: float


@dataclass
class Timing:
    """Seconds of one case, one number per kept round."""

    name: str
    seconds: list[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)


@dataclass
class Comparison:
    """All cases of a run; `noise` is how far the A/A pair came apart, as a ratio above 1."""

    timings: dict[str, Timing]
    noise: float

    def ratio(self, name: str, to: str) -> float:
        """Median of the rounds' own ratios: a case over another in the same round."""
        pairs = zip(self.timings[name].seconds, self.timings[to].seconds, strict=True)
        return statistics.median(mine / other for mine, other in pairs)

    def differs(self, name: str, to: str) -> bool:
        """Whether the difference is larger than the noise."""
        ratio = self.ratio(name, to)
        return max(ratio, 1 / ratio) > self.noise


def compare(
    cases: Mapping[str, Callable[[], object]], *, rounds: int = ROUNDS, device: str = "cpu", minutes: float = math.inf
) -> Comparison:
    """Time the cases against each other; each call is one sample. After `minutes` the round that runs is the last."""
    first = next(iter(cases))
    order = [*cases, first + AGAIN]
    samples: dict[str, list[float]] = {name: [] for name in order}
    end = time.perf_counter() + 60 * minutes
    for number in range(rounds):
        if number > 1 and time.perf_counter() > end:
            print(f"time is up: {number - 1} rounds kept instead of {rounds - 1}")
            break
        for name in order if number % 2 == 0 else reversed(order):
            seconds = _timed(cases[name.removesuffix(AGAIN)], device)
            if number > 0:
                samples[name].append(seconds)
    timings = {name: Timing(name, seconds) for name, seconds in samples.items()}
    pairs = zip(samples[first], samples[first + AGAIN], strict=True)
    return Comparison(timings, max(max(a / b, b / a) for a, b in pairs))


def one_thread() -> None:
    """Let PyTorch use one thread, for process time to mean something. Call before any work."""
    import torch

    torch.set_num_threads(1)


def environment() -> dict[str, Any]:
    """Where and with what a figure was measured."""
    import torch

    found: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": [round(load, 1) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "peft": version("peft"),
    }
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        found |= {"gpu": device.name, "gpu_gib": round(device.total_memory / 2**30, 1), "cuda": torch.version.cuda}
    return found


def matmul_flops(rows: int, inner: int, columns: int, dtype: Any, device: str = "cpu", seconds: float = 1.0) -> float:
    """The rate of one matrix product of this shape, as the best of several: what the hardware gives, FLOP/s."""
    import torch

    a = torch.randn(rows, inner, device=device).to(dtype)
    b = torch.randn(inner, columns, device=device).to(dtype)
    _ = a @ b
    best, spent = float("inf"), 0.0
    while spent < seconds:
        took = _timed(lambda: a @ b, device)
        best, spent = min(best, took), spent + took
    return 2.0 * rows * inner * columns / best


def clock(device: str = "cpu") -> float:
    """Now, in seconds, for a case that times itself: the process's own time, or wall time with the GPU drained."""
    if device != "cuda":
        return time.process_time()
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def read_bandwidth(device: str = "cpu") -> float:
    """Bytes per second at which a large tensor is read and summed: the ceiling of whatever must read its weights."""
    import torch

    data = torch.ones(2**29 if device == "cuda" else 2**26, device=device)
    best = min(_timed(data.sum, device) for _ in range(4))
    return data.numel() * data.element_size() / best


def write(path: Path, name: str, results: Mapping[str, Any]) -> None:
    """The figures with their environment, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"benchmark": name, "environment": environment(), **results}, indent=2, default=_plain)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"written: {path}")


def print_environment() -> None:
    """One line per fact."""
    for name, value in environment().items():
        print(f"{name:<13} {value}")


def _timed(case: Callable[[], object], device: str) -> float:
    if device != "cuda":
        start = time.process_time()
        result = case()
        return result.seconds if isinstance(result, Measured) else time.process_time() - start
    import torch

    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    result = case()
    end.record()
    end.synchronize()
    return result.seconds if isinstance(result, Measured) else begin.elapsed_time(end) / 1000


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True)
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip() + (" with changes" if dirty.stdout else "")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())
    units = [unit for unit in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if unit in flags]
    return f"{names[0] if names else platform.processor() or platform.machine()} ({', '.join(units) or 'no AVX2'})"


def _plain(value: Any) -> Any:
    if isinstance(value, Comparison | Timing):
        return asdict(value)
    return str(value)
