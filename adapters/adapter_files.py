"""An adapter on disk: PEFT's two files, woodshed.json and the card, written at once or not at all, checked before use.

    adapter_model.safetensors   A and B (and DoRA magnitudes), with the description in short in its header
    adapter_config.json         PEFT's settings
    woodshed.json               the whole description (`adapters.metadata`)
    README.md                   the card (`adapters.card`)
    conditions.safetensors      weights of conditions that it adds, or of what is new in a base that it moves to another
                                codec or text encoder, in some adapters (`adapters.added_conditions`)

Adapters that plain peft wrote have the first two only; they are read as well. Where an adapter fits is for
`adapters.fit` to say.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adapters import peft_layout
from adapters.adapter_folder import CARD, CONDITIONS, CONFIG, DESCRIPTION, WEIGHTS, find_weights
from adapters.added_conditions import files as condition_files
from adapters.low_rank import LowRank
from adapters.metadata import Woodshed, parse
from adapters.printable import printable
from adapters.safe_files import read_json, read_tensors
from configs.errors import UserError
from data_prep.safe_write import AGAIN, check_writable, folder_beside

if TYPE_CHECKING:
    from torch import Tensor

    from adapters.added_conditions.frames import FrameCondition

__all__ = [
    "CARD",
    "CONDITIONS",
    "CONFIG",
    "DESCRIPTION",
    "WEIGHTS",
    "Adapter",
    "check_free",
    "find_weights",
    "load",
    "save",
]


@dataclass(frozen=True)
class Adapter:
    """A checked adapter in memory: what it does to each module, and what it says of itself."""

    updates: dict[str, LowRank]
    base_id: str = ""
    revision: str | None = None
    dropout: float = 0.0
    woodshed: Woodshed | None = None
    folder: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)
    """adapter_config.json as it was read."""
    header: dict[str, str] = field(default_factory=dict)
    """The safetensors header's own words."""
    added: "dict[str, FrameCondition]" = field(default_factory=dict)
    """Conditions that it adds to the base's own, by kind."""
    whole: "dict[str, Tensor]" = field(default_factory=dict)
    """Weights of what is new in a base that it moves to another codec or text encoder."""

    @property
    def label(self) -> str:
        """What to call it, on one line: its name, or its folder's."""
        if self.woodshed is not None:
            return printable(self.woodshed.name)
        return printable(self.folder.name) if self.folder else "adapter"


def save(
    folder: Path,
    updates: Mapping[str, LowRank],
    woodshed: Woodshed,
    *,
    dropout: float = 0.0,
    samples: Mapping[str, str] | None = None,
    base_samples: Mapping[str, str] | None = None,
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32",
    overwrite: bool = False,
    again: str = AGAIN,
    added: "Mapping[str, FrameCondition] | None" = None,
    whole: "Mapping[str, Tensor] | None" = None,
) -> Path:
    """Write an adapter folder that plain peft loads; returns it. It appears complete or not at all.

    Args:
        folder: where.
        updates: relative to the original base, as `TrainableAdapter.updates()` gives them.
        woodshed: its description.
        dropout: what it was trained with; only for the record.
        samples: prompt → audio file beside the card (relative), for the card.
        base_samples: the same prompts played by the base alone, with the same seeds.
        dtype: of the numbers in the file.
        overwrite: replace an adapter that is there.
        again: what to do after making room, as the end of a sentence.
        added: weights of the conditions that `woodshed` names.
        whole: weights of what is new in the base where `woodshed` says that it is moved.

    Raises:
        UserError: the folder is taken, or holds something that is no adapter; the disk is full or refuses.
    """
    from adapters.card import card

    check_free(folder, overwrite, again=again)
    tensors = _in_dtype(peft_layout.to_tensors(updates), dtype)
    config = peft_layout.to_config(updates, base_id=woodshed.base.id, revision=woodshed.base.revision, dropout=dropout)
    text = card(woodshed, updates, samples, base_samples)
    added, whole = added or {}, whole or {}
    assert {info.name for info in woodshed.conditions} == added.keys(), "woodshed.json names what is added"
    assert condition_files.whole_shapes(woodshed).keys() == whole.keys(), "woodshed.json says what is new"
    with folder_beside(folder, replace=overwrite, again=again) as made:
        _write(made, tensors, config, woodshed, text)
        if added or whole:
            condition_files.write(made / CONDITIONS, added, whole)
            shutil.copymode(made / CONFIG, made / CONDITIONS)
    return folder


def load(folder: Path, *, force: bool = False) -> Adapter:
    """Read an adapter folder, checking everything in it before any of it is used. Weights are on the CPU.

    `force` lets settings of an unknown peft version pass, nothing else.

    Raises:
        UserError: not an adapter, or damaged, or from a stranger's imagination.
    """
    where = str(folder)
    weights = find_weights(folder)
    config = read_json(folder / CONFIG)
    peft_layout.check_config(config, where, force=force)
    woodshed = parse(read_json(folder / DESCRIPTION), where) if (folder / DESCRIPTION).exists() else None
    tensors, header = read_tensors(weights)
    updates = peft_layout.to_updates(tensors, config, where)
    base_id, revision = config.get("base_model_name_or_path"), config.get("revision")
    dropout = config.get("lora_dropout")
    added, whole = condition_files.read(folder, woodshed)
    return Adapter(
        updates,
        base_id=woodshed.base.id if woodshed else _text(base_id),
        revision=woodshed.base.revision if woodshed else _text(revision) or None,
        dropout=float(dropout) if isinstance(dropout, (int, float)) else 0.0,
        woodshed=woodshed,
        folder=folder,
        config=config,
        header=header,
        added=added,
        whole=whole,
    )


def check_free(folder: Path, overwrite: bool = False, *, again: str = AGAIN) -> None:
    """Find out whether `save` could write here, before the work that leads to it.

    Raises:
        UserError: the folder is taken, or the disk is full or refuses.
    """
    free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if free or (overwrite and (folder / CONFIG).is_file()):
        check_writable(folder, again=again)
        return
    raise UserError(
        f"{folder} is taken: it holds {'an adapter' if (folder / CONFIG).is_file() else 'something else'}.",
        fix="Choose another folder.",
    )


def _write(folder: Path, tensors: "dict[str, Tensor]", config: dict[str, Any], woodshed: Woodshed, card: str) -> None:
    from safetensors.torch import save_file

    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt", **woodshed.flat()})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    shutil.copymode(folder / CONFIG, folder / WEIGHTS)  # safetensors writes for the owner's eyes alone
    (folder / DESCRIPTION).write_text(woodshed.as_json(), encoding="utf-8")
    (folder / CARD).write_text(card, encoding="utf-8")


def _in_dtype(tensors: "dict[str, Tensor]", dtype: str) -> "dict[str, Tensor]":
    from adapters.family.lm import DTYPES

    return {name: tensor.detach().cpu().to(DTYPES[dtype]).contiguous() for name, tensor in tensors.items()}


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= 500 else ""
