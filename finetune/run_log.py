"""What a run says of itself while it goes: log.jsonl always; TensorBoard, W&B or Trackio when asked for.

A line of log.jsonl is {"kind": "step" | "eval" | "preview" | …, "step": …, …}. A run that goes on drops the lines
behind its checkpoint first: those steps come again.
"""

import importlib.util
import json
import math
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from configs.errors import UserError
from configs.train import TrainSettings
from data_prep.safe_write import storing, write_text
from finetune.checkpoint import how_to_go_on
from finetune.run_folder import RunFolder

NEEDS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}


@runtime_checkable
class Curves(Protocol):
    """Where curves go besides the file."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class RunLog:
    """The log file of a run and the curves beside it."""

    def __init__(self, path: Path, curves: Iterable[Curves] = ()) -> None:
        self.path = path
        with storing(path):
            self.file = path.open("a", encoding="utf-8")
        self.curves = list(curves)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """One line, on disk when this returns as far as the process is concerned; its numbers go to the curves.

        Raises:
            UserError: the disk is full or refuses.
        """
        line = {"kind": kind, "step": step, **values}
        with storing(self.path, again=how_to_go_on(RunFolder(self.path.parent).checkpoints)):
            self.file.write(json.dumps(_finite(line), ensure_ascii=False) + "\n")
            self.file.flush()
            points = dict(_points(kind, values))
            for curve in self.curves if points else ():
                curve.scalars(step, points)

    def close(self) -> None:
        """End every log. What a full disk did not take was told when it was written."""
        with suppress(OSError):
            self.file.close()
        for curve in self.curves:
            with suppress(OSError):
                curve.close()


def open_log(folder: RunFolder, settings: TrainSettings, *, from_step: int | None) -> RunLog:
    """Start the log of a new run, or go on behind `from_step`."""
    if from_step is not None:
        forget_after(folder.log, from_step)
    openers = {"tensorboard": _TensorBoard, "wandb": _Wandb, "trackio": _Trackio}
    return RunLog(folder.log, [openers[name](folder, settings, from_step) for name in settings.loggers])


def check_loggers(settings: TrainSettings) -> None:
    """Refuse early what is not installed.

    Raises:
        UserError: names the package.
    """
    for name in settings.loggers:
        if importlib.util.find_spec(NEEDS[name]) is None:
            raise UserError(
                f"{name} is not installed.",
                where=f"loggers: {', '.join(settings.loggers)}",
                fix=f"`uv pip install {NEEDS[name]}`, or leave it out; log.jsonl is written in any case.",
            )


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that a kill cut off is left out."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    read = []
    for number, line in enumerate(lines):
        try:
            read.append(json.loads(line))
        except ValueError:
            if number != len(lines) - 1:
                raise
    return read


def forget_after(path: Path, step: int) -> None:
    """Keep the lines up to and including `step`."""
    kept = [line for line in read_log(path) if line["step"] <= step]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))


def _finite(value: Any) -> Any:
    """JSON knows no NaN: None instead."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def _points(kind: str, values: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for name, value in values.items():
        numbers = value if isinstance(value, list) else [value]
        if not all(isinstance(number, int | float) for number in numbers):
            continue
        for index, number in enumerate(numbers):
            yield (f"{kind}/{name}/{index}" if isinstance(value, list) else f"{kind}/{name}"), number


def _run_id(folder: RunFolder, from_step: int | None) -> str:
    """What Weights & Biases knows this run by, kept for resuming; folders of the same name are common."""
    path = folder.path / "wandb-id"
    if from_step is None or not path.exists():
        write_text(path, secrets.token_hex(8))
    return path.read_text("utf-8")


class _TensorBoard:
    def __init__(self, folder: RunFolder, settings: TrainSettings, from_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = None if from_step is None else from_step + 1
        self.writer = SummaryWriter(str(folder.path / "tensorboard"), purge_step=purge)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    def __init__(self, folder: RunFolder, settings: TrainSettings, from_step: int | None) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        name = folder.path.resolve().name
        self.run = wandb.init(
            project="woodshed",
            name=name,
            id=_run_id(folder, from_step),
            resume="allow",
            dir=folder.path,
            config=settings.model_dump(),
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


class _Trackio:
    def __init__(self, folder: RunFolder, settings: TrainSettings, from_step: int | None) -> None:
        import trackio  # pyright: ignore[reportMissingImports]

        self.trackio = trackio
        name = folder.path.resolve().name
        resume = "never" if from_step is None else "allow"
        trackio.init(project="woodshed", name=name, resume=resume, config=settings.model_dump())

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.trackio.log(dict(values), step=step)

    def close(self) -> None:
        self.trackio.finish()
