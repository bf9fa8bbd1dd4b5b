"""Training in stages: a stage ends when its minutes are over, and the next goes on exactly where it ended.

A stage folder holds state.safetensors (weights, optimizer moments) and state.json (step and everything that is not a
tensor), written beside and renamed, and log.jsonl.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from finetune.state_tree import pack, unpack


class Stage:
    """What one run of a trainer keeps: modules and optimizers by name, a step, a deadline."""

    def __init__(
        self,
        folder: Path,
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        minutes: float,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.modules, self.optimizers = folder, dict(modules), dict(optimizers)
        self.started_sec = time.monotonic()
        self.deadline_sec = self.started_sec + 60 * minutes
        self.earlier_sec = 0.0
        self.step = self._load() if (folder / "state.json").exists() else 0

    @property
    def over(self) -> bool:
        """Whether the minutes are used up."""
        return time.monotonic() > self.deadline_sec

    @property
    def left(self) -> float:
        """Share of this stage's minutes that is left."""
        whole = self.deadline_sec - self.started_sec
        return max(0.0, self.deadline_sec - time.monotonic()) / whole if whole else 0.0

    @property
    def trained_sec(self) -> float:
        """Seconds of all stages so far."""
        return self.earlier_sec + time.monotonic() - self.started_sec

    def log(self, **values: float) -> None:
        """A line in log.jsonl and on the terminal."""
        line = {"step": self.step, "sec": round(self.trained_sec, 1)}
        line |= {name: float(f"{value:.5g}") for name, value in values.items()}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print("  ".join(f"{name} {value}" for name, value in line.items()), flush=True)

    def save(self) -> None:
        """Everything that the next stage needs."""
        tensors: dict[str, torch.Tensor] = {}
        for name, module in self.modules.items():
            # A copy of each: two names of one tensor, as T5 has, may not share memory in the file.
            tensors |= {f"{name}.{key}": value.to("cpu", copy=True) for key, value in module.state_dict().items()}
        plain: dict[str, Any] = {}
        for name, optimizer in self.optimizers.items():
            plain[name], held = pack(optimizer.state_dict(), f"optimizers/{name}")
            tensors |= held
        state = {"step": self.step, "trained_sec": self.trained_sec, "optimizers": plain}
        save_file(tensors, self.folder / "state.safetensors.part")
        (self.folder / "state.json.part").write_text(json.dumps(state))
        for name in ("state.safetensors", "state.json"):
            (self.folder / f"{name}.part").rename(self.folder / name)

    def _load(self) -> int:
        state = json.loads((self.folder / "state.json").read_text())
        tensors = load_file(self.folder / "state.safetensors")
        for name, module in self.modules.items():
            module.load_state_dict(weights_of(tensors, name))
        for name, optimizer in self.optimizers.items():
            if name in state["optimizers"]:
                optimizer.load_state_dict(unpack(state["optimizers"][name], tensors))
        self.earlier_sec = state["trained_sec"]
        return state["step"]


def weights_of(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The state dict of one module among the tensors of a stage."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def load_module(folder: Path, name: str, module: nn.Module) -> nn.Module:
    """A module as the last stage left it, in eval."""
    module.load_state_dict(weights_of(load_file(folder / "state.safetensors"), name))
    return module.eval()


def pick_device() -> torch.device:
    """The GPU when there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
