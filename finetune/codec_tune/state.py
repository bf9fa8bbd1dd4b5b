"""What a tuning run keeps so that it goes on exactly where it was: decoder, optimizers, step, best."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from configs.errors import UserError
from data_prep.safe_write import remove, written_beside
from finetune.state_tree import pack, unpack

STATE = "state.safetensors"


def start_folder(out: Path, holding: str, ours: Collection[str], stale: Collection[str]) -> None:
    """Make the folder of a run that has no state yet; what a kill left half written or unused goes.

    Args:
        out: the folder.
        holding: what it is for, in a message: `the codec`.
        ours: names that an earlier run may have left there.
        stale: which of these are of no use without a state.

    Raises:
        UserError: it holds anything else.
    """
    for part in out.glob(".*.part"):
        remove(part)
    if out.exists() and any(path.name not in ours for path in out.iterdir()):
        raise UserError(f"The folder for {holding} holds other things.", where=str(out), fix="Give another one.")
    out.mkdir(parents=True, exist_ok=True)
    for name in stale:
        (out / name).unlink(missing_ok=True)


def refuse_another(out: Path, changed: Sequence[str]) -> None:
    """Refuse to go on with a run that was begun with something else.

    Raises:
        UserError: anything has changed.
    """
    if changed:
        raise UserError(
            f"This folder holds a run with another {', '.join(changed)}.",
            where=str(out),
            fix="Give the same songs and settings to go on with it, or another folder.",
        )


def save_state(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    told: dict[str, Any],
) -> None:
    """One file, written beside and renamed: it is whole or the one before."""
    tensors: dict[str, torch.Tensor] = {}
    for name, module in modules.items():
        tensors |= {f"{name}.{key}": value.detach().to("cpu", copy=True) for key, value in module.state_dict().items()}
    plain: dict[str, Any] = {}
    for name, optimizer in optimizers.items():
        plain[name], held = pack(optimizer.state_dict(), f"optimizers/{name}")
        tensors |= held
    with written_beside(folder / STATE) as part:
        save_file(tensors, part, {"told": json.dumps(told), "optimizers": json.dumps(plain)})


def read_told(folder: Path) -> dict[str, Any]:
    """What a run said of itself, before anything is put into modules that may not fit."""
    from safetensors import safe_open

    with safe_open(folder / STATE, framework="pt") as opened:
        return json.loads(opened.metadata()["told"])


def load_state(
    folder: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Any]:
    """Put everything back; returns what else was kept."""
    from safetensors import safe_open

    with safe_open(folder / STATE, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(folder / STATE)
    for name, module in modules.items():
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        module.load_state_dict(own)
    plain = json.loads(metadata["optimizers"])
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(unpack(plain[name], tensors))
    return json.loads(metadata["told"])
