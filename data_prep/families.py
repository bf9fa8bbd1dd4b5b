"""Which family of models a base belongs to, found by its own files; a family's file formats are loaded by name.

A family lives in one folder above this package (`adapters/family/<name>/`): its `format` module, which imports neither
torch nor transformers, describes the base's files to everyone. This table is the one place that looks upward.
"""

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.lm_spec import LMSpec

BUILT_IN = ("musicgen", "musicgen_melody", "magenta_rt2")
_HOME = "adapters.family.{}.format"
_registered: dict[str, "BaseFormat"] = {}

if TYPE_CHECKING:
    from data_prep.codec.source import CodecSource


@dataclass(frozen=True)
class HubPlace:
    """A repository on the hub, what is fetched of it, and the part of it that is the base ("": all)."""

    repository: str
    patterns: tuple[str, ...]
    inside: str = ""


Problem = tuple[str, str]
"""Why files cannot be used, and what to do about it."""


class BaseFormat(ABC):
    """How the bases of one family lie on disk."""

    family: str
    needed_files: tuple[str, ...]
    """Patterns of what is fetched from a hub."""
    licences: Mapping[str, str] = {}
    """Licence of the weights (SPDX-like, lower case) by the beginning of a hub id."""
    tags: tuple[str, ...] = ()
    """Of a shared adapter's card."""
    transformers_class: str | None = None
    """The class of transformers that plain peft puts an adapter on; None: transformers does not have the model."""
    folders_beside: tuple[str, ...] = ()
    """Folders of a base that belong to it whole, beside the weights: a merged model needs them too."""
    text_encoder: str = "t5"
    """Kind of what reads captions, as data_prep.text_encoders names them."""
    movable: tuple[str, ...] = ()
    """What an adapter can move a base to another of: "pattern", "text encoder", "codec"."""
    parts: Mapping[str, str] = {}
    """Prefix of the tensors of `codec` and `text_encoder` in the base's weight files, where they are there."""

    @abstractmethod
    def recognises(self, folder: Path, config: Mapping[str, Any]) -> bool:
        """Whether this folder holds a base of this family; `config` is its config.json, empty where it has none."""

    @abstractmethod
    def problems(self, folder: Path, config: Mapping[str, Any]) -> Iterator[Problem]:
        """Each reason why a folder of this family cannot be used, most basic first."""

    @abstractmethod
    def spec(self, folder: Path, config: Mapping[str, Any]) -> LMSpec:
        """The language model's description."""

    def module_kind(self, module: str) -> str | None:
        """What a module of the LM is, for tables ("self attention"); None for a name that no module here has."""
        return None

    def whole_name(self, module: str) -> str:
        """The name in the whole checkpoint of a module that is named from a part of the model; others as they are."""
        return module

    def root(self, folder: Path) -> Path:
        """The folder that holds all files of a base; `folder` may be one checkpoint of several in it."""
        return folder

    def on_hub(self, id: str) -> "HubPlace | None":
        """Where a base of this family is on the hub, for an id that says more than the repository; else None."""
        return None

    def published(self, id: str) -> LMSpec | None:
        """The description of a base that is known by its hub id alone, without a file of it; None for others."""
        return None

    def codec_source(self, folder: Path) -> "CodecSource | None":
        """The codec of a base that has it in a layout of its own; None: it is read by `parts`."""
        return None

    @abstractmethod
    def weight_files(self, folder: Path) -> list[Path]:
        """The safetensors files that hold the weights.

        Raises:
            UserError: their index cannot be read.
        """


def register(format: BaseFormat) -> None:
    """Make a family known that does not come with Woodshed; the newest registration of a name counts."""
    _registered[format.family] = format


def formats() -> Iterator[BaseFormat]:
    """Every known family's format, registered ones first."""
    yield from _registered.values()
    yield from (_built_in(name) for name in BUILT_IN if name not in _registered)


def format_of(folder: Path) -> BaseFormat | None:
    """The format of the family that recognises a folder, if one does."""
    config = read_config(folder)
    return next((format for format in formats() if format.recognises(folder, config)), None)


def format_named(family: str) -> BaseFormat | None:
    """The format of a family by its name, None for one that is not known here."""
    return next((format for format in formats() if format.family == family), None)


def module_kind(module: str) -> str:
    """What a module of this name is, in words of the family that has it; `other` where none has."""
    return next((kind for format in formats() if (kind := format.module_kind(module)) is not None), "other")


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json; empty where there is none that can be read."""
    return read_json(folder / "config.json")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; empty where there is none that can be read."""
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _built_in(name: str) -> BaseFormat:
    return importlib.import_module(_HOME.format(name)).FORMAT
