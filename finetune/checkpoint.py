"""What a run needs to go on after a stop, in safetensors and JSON: no pickle.

    checkpoint-{step}/
        adapter.safetensors      the weights that learn, under the model's own names
        average.safetensors      their running average, when there is one
        optimizer.safetensors    the tensors of the optimizer's state
        state.json               the rest of it, the fp16 scaler, and the position
    weights-{step}.safetensors   the weights (or their average) alone, at places spread over the run

There are no generator states and no schedule among them: the learning rate is a function of the step, everything random
about a clip one of (seed, epoch, clip), and the generators are seeded anew for each micro-batch.

A checkpoint is written into a hidden folder beside, flushed to the disk and renamed: it is there whole or not at all.
"""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from configs.errors import UserError
from data_prep.safe_write import folder_beside, write_bytes
from finetune.ema import Ema
from finetune.state_tree import pack, unpack

NAME = re.compile(r"checkpoint-(\d+)")
WEIGHTS = re.compile(r"weights-(\d+)\.safetensors")


@dataclass
class Position:
    """Where a run stands: how far, and what its held-out losses were. Losses are one number per codebook, in nats."""

    step: int = 0
    """Optimizer steps done."""
    trained_sec: float = 0.0
    """Seconds spent in steps, over all starts of the run."""
    audio_sec: float = 0.0
    """Seconds of music heard."""
    base_loss: list[float] = field(default_factory=list)
    """Held-out loss of the base alone; empty without a validation split."""
    last_loss: list[float] = field(default_factory=list)
    """Of the last evaluation."""
    best_loss: list[float] = field(default_factory=list)
    best_step: int | None = None
    without_better: int = 0
    """Evaluations since the best one."""


@dataclass
class State:
    """Everything that training owns and changes."""

    weights: dict[str, torch.nn.Parameter]
    optimizer: Any
    ema: Ema
    scaler: Any | None
    position: Position


@dataclass(frozen=True)
class Snapshot:
    """A copy of a state in main memory, which training does not change any more. Files by name, tensors by name."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    kept: dict[str, Any]


def save(folder: Path, state: State) -> Path:
    """Write the state of this moment as `checkpoint-{step}` into the folder; if that is there, leave it.

    Raises:
        UserError: it cannot be written, usually for want of space. The checkpoints that are there stay as they are.
    """
    return write(folder, snapshot(state))


def write(folder: Path, copy: Snapshot) -> Path:
    """Write a copy of a state; see `save`."""
    path = folder / f"checkpoint-{copy.step}"
    if path.exists():
        return path
    with folder_beside(path, again=how_to_go_on(folder)) as part:
        for name, content in _contents(copy):
            _write(part / name, content)
    return path


def load(path: Path, state: State) -> None:
    """Bring a saved state back into weights, optimizer, average, scaler and position, to the bit.

    Raises:
        UserError: the checkpoint is damaged, or belongs to other weights.
    """
    try:
        kept = json.loads((path / "state.json").read_text())
        weights = load_file(path / "adapter.safetensors")
        average = load_file(path / "average.safetensors") if kept["average_updates"] is not None else {}
        moments = load_file(path / "optimizer.safetensors")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise _not_read(path, str(error)) from error
    shapes = {name: weight.shape for name, weight in state.weights.items()}
    if {name: weight.shape for name, weight in weights.items()} != shapes or bool(average) != bool(state.ema.decay):
        raise _not_read(path, "its weights are not those that this run learns")
    _copy(weights, state.weights)
    state.ema.load(average, kept["average_updates"] or 0)
    state.optimizer.load_state_dict(unpack(kept["optimizer"], moments))
    if state.scaler is not None and kept["scaler"] is not None:
        state.scaler.load_state_dict(unpack(kept["scaler"], {}))
    state.position = Position(**kept["position"])


def load_weights(path: Path, state: State) -> None:
    """Bring back only what is to become the adapter: the average where there is one, else the weights."""
    _copy(load_file(_to_become_adapter(path)), state.weights)


def all_steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in the folder, oldest first."""
    names = [NAME.fullmatch(path.name) for path in folder.glob("checkpoint-*")] if folder.is_dir() else []
    return sorted(int(match[1]) for match in names if match)


def keep_weights(folder: Path, state: State) -> Path:
    """Write what would become the adapter at this moment as `weights-{step}.safetensors`, a third of a checkpoint.

    Raises:
        UserError: it cannot be written, usually for want of space.
    """
    path = folder / f"weights-{state.position.step}.safetensors"
    if not path.exists():
        weights = _plain(state.ema.average if state.ema.decay else state.weights)
        write_bytes(path, to_bytes(weights), again=how_to_go_on(folder))
    return path


def kept_weights(folder: Path) -> dict[int, Path]:
    """By step, the file with what would become the adapter: of checkpoints, and of those kept as weights alone."""
    names = [WEIGHTS.fullmatch(path.name) for path in folder.glob("weights-*")] if folder.is_dir() else []
    found = {int(match[1]): folder / match[0] for match in names if match}
    return found | {step: _to_become_adapter(folder / f"checkpoint-{step}") for step in all_steps(folder)}


def newest(folder: Path) -> Path | None:
    """The checkpoint that went furthest, if there is any."""
    steps = all_steps(folder)
    return folder / f"checkpoint-{steps[-1]}" if steps else None


def how_to_go_on(folder: Path) -> str:
    """What to do after a failure, as the end of a sentence: there may be nothing yet to resume."""
    found = newest(folder)
    if found is None:
        return "run the command without --resume: there is no checkpoint yet."
    return f"run the same command with --resume: {found.name} is untouched."


def prune(folder: Path, keep: int, best_step: int | None) -> None:
    """Delete all but the newest `keep` checkpoints and the best one, and what a kill left half written."""
    for leftover in folder.glob(".checkpoint-*.part*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for leftover in folder.glob(".weights-*.part"):
        leftover.unlink(missing_ok=True)
    for step in all_steps(folder)[:-keep]:
        if step != best_step:
            shutil.rmtree(folder / f"checkpoint-{step}", ignore_errors=True)


def snapshot(state: State) -> Snapshot:
    """Copy the state."""
    optimizer, moments = pack(state.optimizer.state_dict())
    scaler = None if state.scaler is None else pack(state.scaler.state_dict())[0]
    averaged = bool(state.ema.decay)
    kept = {
        "position": asdict(state.position),
        "average_updates": state.ema.updates if averaged else None,
        "scaler": scaler,
        "optimizer": optimizer,
    }
    files = {"adapter.safetensors": _plain(state.weights), "optimizer.safetensors": moments}
    if averaged:
        files["average.safetensors"] = _plain(state.ema.average)
    return Snapshot(state.position.step, files, kept)


def _to_become_adapter(path: Path) -> Path:
    averaged = path / "average.safetensors"
    return averaged if averaged.exists() else path / "adapter.safetensors"


def _contents(copy: Snapshot) -> Iterator[tuple[str, bytes]]:
    """File name and content, one at a time."""
    for name, tensors in copy.tensors.items():
        yield name, to_bytes(tensors)
    yield "state.json", json.dumps(copy.kept).encode()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _plain(weights: dict[str, Any]) -> dict[str, Tensor]:
    return {name: weight.detach().to("cpu", copy=True).contiguous() for name, weight in weights.items()}


@torch.no_grad()
def _copy(saved: dict[str, Tensor], live: dict[str, torch.nn.Parameter]) -> None:
    for name, tensor in saved.items():
        live[name].copy_(tensor)


def _not_read(path: Path, why: str) -> UserError:
    return UserError(
        f"The checkpoint cannot be used: {why}",
        where=str(path),
        fix="Delete this folder and run with --resume again: the checkpoint before it is used then.",
    )
