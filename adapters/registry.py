"""Which adapters are here: in run folders, in given folders and in the hub's cache; what they say, and where they fit.

Only headers and JSON are read, no weights, so that hundreds are listed at once. A broken one is listed with the reason.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters import peft_layout
from adapters.adapter_files import CONFIG, DESCRIPTION, WEIGHTS, Adapter, find_weights
from adapters.fit import differences_in_shape, differences_in_weights
from adapters.metadata import parse
from adapters.safe_files import check_header, read_json
from configs.errors import UserError

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles

MAX_DEPTH, MAX_FOLDERS = 4, 20_000
SKIPPED = {"checkpoints", "tokens", "text_states", "samples", "node_modules", "__pycache__", "blobs", "refs"}


@dataclass(frozen=True)
class Listed:
    """One line of the list. `problem` says why it is broken, `misfit` why it does not belong to the base asked for."""

    path: Path
    name: str = ""
    base: str = ""
    trigger: str = ""
    n_bytes: int = 0
    ranks: tuple[int, ...] = ()
    loss: tuple[float, float] | None = None
    """Held-out loss without the adapter, and with it."""
    license: str = ""
    fits: bool | None = None
    misfit: str = ""
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "path": str(self.path),
            "name": self.name,
            "base": self.base,
            "trigger": self.trigger,
            "bytes": self.n_bytes,
            "ranks": list(self.ranks),
            "held_out": None if self.loss is None else {"base": self.loss[0], "adapter": self.loss[1]},
            "license": self.license,
            "fits": self.fits,
            "misfit": self.misfit,
            "problem": self.problem,
        }


def list_adapters(folders: Iterable[Path], files: "BaseFiles | None" = None) -> list[Listed]:
    """Every adapter in and below these folders, by path; `files` is a base to hold them against."""
    return [_listed(folder, files) for folder in find(folders)]


def find(folders: Iterable[Path]) -> list[Path]:
    """Folders that hold an adapter, at most four levels down, each once, sorted."""
    found = {path.resolve(): path for folder in folders for path in _below(folder, MAX_DEPTH)}
    return sorted(found.values())


def hub_cache() -> Path:
    """Where huggingface_hub keeps what was fetched."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def glance(folder: Path) -> Adapter:
    """An adapter with shapes but no numbers: everything but the weights' values is read and checked.

    Raises:
        UserError: as `adapter_files.load`, but for values.
    """
    import torch

    where = str(folder)
    weights = find_weights(folder)
    config = read_json(folder / CONFIG)
    peft_layout.check_config(config, where, force=True)
    told = parse(read_json(folder / DESCRIPTION), where) if (folder / DESCRIPTION).exists() else None
    entries, _ = check_header(weights)
    shapes = {name: torch.empty(entry["shape"], device="meta") for name, entry in entries.items()}
    updates = peft_layout.to_updates(shapes, config, where)
    named = config.get("base_model_name_or_path")
    base_id = told.base.id if told else (named[:500] if isinstance(named, str) else "")
    return Adapter(updates, base_id=base_id, woodshed=told, folder=folder, config=config)


def _listed(folder: Path, files: "BaseFiles | None") -> Listed:
    try:
        adapter = glance(folder)
        misfit = [] if files is None else _misfit(adapter, files)
        n_bytes = (folder / WEIGHTS).stat().st_size
    except UserError as error:
        return Listed(folder, name=folder.name, problem=error.what)
    except OSError as error:
        return Listed(folder, name=folder.name, problem=f"it cannot be read: {error.strerror}")
    told = adapter.woodshed
    held_out = told.held_out if told else None
    return Listed(
        folder,
        name=told.name if told else _own_name(folder),
        base=adapter.base_id,
        trigger=told.trigger if told else "",
        n_bytes=n_bytes,
        ranks=tuple(sorted({update.rank for update in adapter.updates.values()})),
        loss=(held_out.base, held_out.adapter) if held_out else None,
        license=told.license if told else "",
        fits=None if files is None else not misfit,
        misfit=misfit[0] if misfit else "",
    )


def _misfit(adapter: Adapter, files: "BaseFiles") -> list[str]:
    return [*differences_in_weights(adapter, files), *differences_in_shape(adapter.updates, files)]


def _own_name(folder: Path) -> str:
    """What tells it apart: a run's adapter is called `adapter`, a snapshot of the hub's cache by its commit."""
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.parent.name if folder.name == "adapter" else folder.name


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Adapters in a folder; what is below an adapter is its own."""
    waiting, looked = [(folder, depth)], 0
    while waiting and looked < MAX_FOLDERS:
        here, left = waiting.pop()
        looked += 1
        if any((here / name).is_file() for name in (WEIGHTS, CONFIG)):
            yield here
        elif left:
            waiting += [(inner, left - 1) for inner in _folders(here)]


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            inner = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []  # not there, or not for us to read: it holds nothing that could be listed
    return sorted(path for path in inner if not path.name.startswith(".") and path.name not in SKIPPED)
