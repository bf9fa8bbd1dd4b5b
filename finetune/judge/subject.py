"""What is judged: an adapter, or a run with its kept checkpoints; its base; its dataset, where there is one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.adapter_files import Adapter, load
from adapters.fit import check_fit
from adapters.low_rank import LowRank
from adapters.moved import moved_files, words_of
from configs.errors import UserError
from data_prep.base_files import BaseFiles, resolve_base
from data_prep.prepared import PreparedDataset
from finetune import dataset_fit
from finetune.checkpoint import kept_weights
from finetune.run_folder import RunFolder, saved_settings

if TYPE_CHECKING:
    from torch import Tensor

OUT = "evaluation"


@dataclass(frozen=True)
class Candidate:
    """Weights to choose from; `step` None where nobody knows it."""

    step: int | None
    updates: Mapping[str, LowRank]
    whole: "Mapping[str, Tensor]" = field(default_factory=dict)
    """Weights of what is new in a base that it moves."""


@dataclass(frozen=True)
class Subject:
    """Everything that a judgement starts from."""

    folder: Path
    """The adapter's."""
    run: RunFolder | None
    adapter: Adapter
    files: BaseFiles
    dataset: PreparedDataset | None

    @property
    def trigger(self) -> str:
        """Words that bring the style out."""
        told = self.adapter.woodshed
        return (told.trigger if told else "") or (self.dataset.trigger if self.dataset else "")

    @property
    def step(self) -> int | None:
        """The step whose weights the adapter has."""
        told = self.adapter.woodshed
        return told.training.steps if told and told.training else None

    @property
    def out(self) -> Path:
        """Where the page goes when nobody says."""
        return self.run.path / OUT if self.run else Path(OUT) / self.folder.resolve().name


def open_subject(path: Path, data: Path | None = None, base: str | None = None, revision: str | None = None) -> Subject:
    """Read an adapter's folder or a run's, its base and its dataset.

    Raises:
        UserError: no adapter there, one that follows more than words, a base that it does not belong to, or a dataset
            for another codec.
    """
    run = RunFolder(path) if RunFolder(path).config.exists() else None
    if run is not None and not run.adapter.is_dir():
        raise UserError(
            "This run has no adapter yet.", where=str(path), fix="Finish it: woodshed train DATA RUN --resume."
        )
    folder = run.adapter if run else path
    if run is None and folder.name == "adapter" and RunFolder(folder.resolve().parent).config.exists():
        run = RunFolder(folder.resolve().parent)
    adapter = load(folder)
    if adapter.added:
        raise UserError(
            f"This adapter follows {' and '.join(adapter.added)}: its music cannot be judged from prompts alone.",
            where=str(folder),
            fix="Listen to it with recordings of yours: woodshed sample ADAPTER PROMPT --with FILE (--melody, --beat).",
        )
    stood = _stood_on(run)
    told = stood["base"]["name"] if stood else adapter.base_id  # an adapter names a local base without its path
    if not (base or told):
        raise UserError("This adapter does not say which base it belongs to.", where=str(folder), fix="Add --base.")
    files = resolve_base(base or told, revision or (None if base else adapter.revision))
    files = moved_files(files, [adapter])
    if files.move.codec is not None:
        raise UserError(
            f"{adapter.label} plays {words_of(adapter.woodshed.moved if adapter.woodshed else None)}: the sound of "
            "another codec cannot be compared with the base's.",
            where=str(folder),
            fix="Listen to it: woodshed sample ADAPTER PROMPT; its held-out loss is in the run's report.",
        )
    check_fit(adapter, files)
    return Subject(folder, run, adapter, files, _dataset(data, stood, files))


def candidates(subject: Subject, *, checkpoints: bool) -> list[Candidate]:
    """The adapter as it is, and the other checkpoints of its run."""
    found = [Candidate(subject.step, subject.adapter.updates, subject.adapter.whole)]
    if subject.run is None or not checkpoints or subject.adapter.woodshed is None:
        return found
    others = {step: path for step, path in kept_weights(subject.run.checkpoints).items() if step != subject.step}
    return sorted([*found, *_of_steps(subject, others)], key=lambda one: one.step or 0)


def _of_steps(subject: Subject, files: Mapping[int, Path]) -> list[Candidate]:
    """Read on a base of their own: some adapters start by changing it."""
    from safetensors.torch import load_file

    from adapters.family.load import load_lm
    from adapters.lora import attach
    from adapters.whole_weights.layers import values_of

    assert subject.run is not None
    if not files:
        return []
    settings = saved_settings(subject.run)
    adapter = attach(load_lm(subject.files), settings.lora, settings.seed)
    found = []
    for step, path in files.items():
        adapter.load_tensors(load_file(path))
        found.append(Candidate(step, adapter.updates(), values_of(adapter.whole)))
    return found


def _stood_on(run: RunFolder | None) -> dict[str, Any] | None:
    """What a run says that it stands on: its base and its dataset."""
    if run is None or not run.versions.exists():
        return None
    told = json.loads(run.versions.read_text("utf-8"))
    return told if {"base", "dataset"} <= told.keys() else None


def _dataset(data: Path | None, stood: dict[str, Any] | None, files: BaseFiles) -> PreparedDataset | None:
    if data is None and stood is not None:
        named = Path(stood["dataset"]["name"])
        data = named if named.is_dir() else None
    if data is None:
        return None
    dataset = PreparedDataset(data)
    dataset_fit.check_fit(dataset, files)
    return dataset
