"""The folder of a run: what stands where, and who may write into it.

A new run needs an empty folder. A run goes on only with the settings, the dataset and the base that it was started
with; what may change is in `FREE`, because it changes when things are looked at or how fast it goes, not what is learnt
from a step.
"""

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from configs.errors import UserError
from configs.train import TrainSettings
from configs.tree import to_yaml
from data_prep.safe_write import remove, storing, write_text
from data_prep.typed_paths import is_there
from finetune.base_place import place_of
from finetune.checkpoint import newest
from finetune.moving import places_of

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles
    from data_prep.prepared import PreparedDataset

FREE = (
    "steps",
    "epochs",
    "checkpointing",
    "checkpointed_layers",
    "partly_recomputed_layers",
    "memory",
    "device",
    "loggers",
    "eval.every_steps",
    "eval.patience",
    "preview.*",
)
FREE += ("checkpoint.*",)
NAMES = ("base", "revision")
"""Where the base is. What it is, its fingerprint says."""
TOGETHER = ("batch_size", "accumulation")
"""May change as long as a step holds as many clips as before."""
PACKAGES = ("woodshed", "torch", "transformers", "peft", "accelerate", "bitsandbytes", "safetensors", "numpy")


@dataclass(frozen=True)
class RunFolder:
    """The names in a run's folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved settings, as `--config` reads them."""
        return self.path / "config.yaml"

    @property
    def versions(self) -> Path:
        """What the run stands on: packages, dataset, base."""
        return self.path / "versions.json"

    @property
    def log(self) -> Path:
        """A line per step, evaluation and preview."""
        return self.path / "log.jsonl"

    @property
    def checkpoints(self) -> Path:
        """One folder per kept checkpoint."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """Previews."""
        return self.path / "samples"

    @property
    def prior_pieces(self) -> Path:
        """What the base played for `prior_prompts`."""
        return self.path / "prior_pieces.safetensors"

    @property
    def adapter(self) -> Path:
        """The result."""
        return self.path / "adapter"

    @property
    def report(self) -> Path:
        """The run as a page."""
        return self.path / "report.html"


@contextmanager
def only_one(folder: RunFolder) -> Iterator[None]:
    """Hold the run's lock; it is gone when the process ends, however it ends.

    Raises:
        UserError: another process trains in this folder, or the disk is full or refuses.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder.path / ".lock")
    with storing(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(
                "Another `woodshed train` is working in this folder.",
                where=str(folder.path),
                fix="Wait until it has finished, or stop it and go on with --resume.",
            ) from error
    try:
        yield
    finally:
        lock.release()


def refuse_used(folder: RunFolder) -> None:
    """A new run writes over nothing. One that ended before its first checkpoint left nothing to lose: it is cleared,
    unless the folder holds anything that no run writes.

    Raises:
        UserError: the folder holds a run, or anything else.
    """
    held = sorted(path.name for path in folder.path.iterdir() if path.name != ".lock") if folder.path.is_dir() else []
    if not held:
        return
    if _hardly_begun(folder, held):
        _clear(folder)
        return
    if folder.config.exists():
        raise UserError(
            "This folder holds a run already.",
            where=str(folder.path),
            fix="Add --resume to go on with it, or give another folder.",
        )
    raise UserError(
        f"This folder is not empty: it holds {', '.join(held[:3])}{' …' if len(held) > 3 else ''}.",
        where=str(folder.path),
        fix="Give a folder that is empty or does not exist yet.",
    )


def checkpoint_to_resume(folder: RunFolder) -> Path:
    """The newest checkpoint.

    Raises:
        UserError: there is none, or no run at all.
    """
    if not folder.config.exists():
        raise UserError(
            "There is no run here to go on with.",
            where=str(folder.path),
            fix="Leave --resume out to start one, or check the folder's name.",
        )
    found = newest(folder.checkpoints)
    if found is None:
        raise UserError(
            "This run stopped before its first checkpoint: there is nothing to resume.",
            where=str(folder.checkpoints),
            fix="Start again without --resume; a smaller --checkpoint.every_steps saves earlier.",
        )
    return found


def resumed_settings(folder: RunFolder, given: TrainSettings) -> TrainSettings:
    """The settings of the run, with those changed that were given this time and differ.

    Raises:
        UserError: the base was a local folder that is not there any more.
    """
    saved = _saved(folder)
    asked = asked_before(folder)
    merged = _over(saved, given.model_dump(mode="json", exclude_unset=True), asked)
    if merged.get("base") == saved.get("base"):
        merged["base"] = place_of(saved.get("base"), json.loads(folder.versions.read_text("utf-8")).get("base", {}))
    return TrainSettings.model_validate(merged)


def saved_settings(folder: RunFolder) -> TrainSettings:
    """The settings that the run had until now."""
    return TrainSettings.model_validate(_saved(folder))


def _saved(folder: RunFolder) -> dict[str, Any]:
    """What config.yaml says. A run of an older version goes on without what came later."""
    saved = yaml.safe_load(folder.config.read_text("utf-8"))["train"]
    pieces = len(saved.get("prior_prompts", []))
    later = {"prior_share": 0.0, "prior_pieces": pieces, "trigger_alone": 0.0, "trigger_rows": 0}
    context = {"history_dropout": 0.0, **saved.get("context", {})}
    return later | saved | {"context": context}


def asked_before(folder: RunFolder) -> dict[str, Any]:
    """What the person gave when the run began: `--memory` may have chosen other values since."""
    return json.loads(folder.versions.read_text("utf-8"))["asked"]


def refuse_changes(folder: RunFolder, settings: TrainSettings, standing: Mapping[str, Any]) -> None:
    """Going on must be the same run.

    Raises:
        UserError: names each difference in settings, dataset, base or clips per step.
    """
    before = saved_settings(folder).model_dump(mode="json")  # an older version knew fewer settings
    now = settings.model_dump(mode="json")
    stood = json.loads(folder.versions.read_text("utf-8"))
    changes = [line for line in _differences(before, now) if not _is_free(line.split(":")[0])]
    if stood["clips_per_step"] != standing["clips_per_step"]:
        was, is_ = stood["clips_per_step"], standing["clips_per_step"]
        changes.append(f"clips per step (batch_size × accumulation × processes): {was} → {is_}")
    changes += [
        f"the {part}: {stood[part]['name']} → {standing[part]['name']}, with other contents"
        for part in ("dataset", "base")
        if stood[part]["fingerprint"] not in (standing[part]["fingerprint"], standing[part].get("fingerprint_before"))
    ]
    if changes:
        raise UserError(
            "This is not the run that was started here:\n  " + "\n  ".join(changes),
            where=str(folder.path),
            fix="Leave the changed flags out to go on with the run as it was, or start a new one in another folder. "
            f"What may change: {', '.join(FREE)}.",
        )


def describe(folder: RunFolder, settings: TrainSettings, standing: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Write versions.json, then config.yaml: a folder with the second has the first. `asked`: the settings as given."""
    write_text(folder.versions, json.dumps({**versions(), **standing, "asked": asked}, indent=2) + "\n")
    write_text(folder.config, to_yaml(settings))


def standing_on(dataset: "PreparedDataset", files: "BaseFiles", base_fingerprint: str, clips_per_step: int) -> dict:
    """What the run depends on beside its settings."""
    base = {"name": files.id, "revision": files.revision, "fingerprint": base_fingerprint}
    if is_there(files.id):
        base["folder"] = str(files.folder.resolve())
    learned = {"name": str(dataset.folder.resolve()), "fingerprint": dataset.learned_content()}
    learned["fingerprint_before"] = dataset.info["content"]  # what runs of older versions wrote down
    moved = {"moved": places} if (places := places_of(files)) else {}
    return {"dataset": learned, "base": base, "clips_per_step": clips_per_step, **moved}


def versions() -> dict[str, Any]:
    """Of Python and the packages that decide what comes out."""
    return {"python": platform.python_version(), "platform": platform.platform(), "packages": dict(_packages())}


def _hardly_begun(folder: RunFolder, held: list[str]) -> bool:
    """Whether a run of ours, and nothing else, left this folder before its first checkpoint."""
    if not set(held) <= {path.name for path in _cleared(folder)} or newest(folder.checkpoints) is not None:
        return False
    try:
        stood = json.loads(folder.versions.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(stood, dict) and {"clips_per_step", "asked"} <= stood.keys()


def _cleared(folder: RunFolder) -> list[Path]:
    """What a run writes before its first checkpoint; the mark of a run, versions.json, is the last to go."""
    folders = [folder.checkpoints, folder.samples, folder.path / "tensorboard", folder.path / "wandb"]
    parts = sorted(folder.path.glob(".*.part"))  # of a process that was killed
    return [
        *folders,
        *parts,
        folder.prior_pieces,
        folder.path / "wandb-id",
        folder.log,
        folder.report,
        folder.config,
        folder.versions,
    ]


def _clear(folder: RunFolder) -> None:
    with storing(folder.path):
        for path in _cleared(folder):
            remove(path)


def _packages() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "not installed"


def _over(below: dict[str, Any], above: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with those values of `above` that are not what was asked for before."""
    merged = dict(below)
    for name, value in above.items():
        if isinstance(value, dict):
            merged[name] = _over(merged[name], value, asked.get(name, {}))
        elif name not in asked or asked[name] != value:
            merged[name] = value
    return merged


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name in now:
        if isinstance(now[name], dict):
            yield from _differences(before.get(name, {}), now[name], f"{prefix}{name}.")
        elif before.get(name) != now[name]:
            yield f"{prefix}{name}: {before.get(name)} → {now[name]}"


def _is_free(name: str) -> bool:
    return name in FREE + TOGETHER + NAMES or f"{name.split('.')[0]}.*" in FREE
