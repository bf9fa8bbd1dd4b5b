"""Where a base model's files are: a hub id, a local folder, `debug` or `starter` becomes a folder with checked files.

Knows names and files, not models: which family a folder belongs to is the families' own matter (`data_prep.families`).
Only safetensors are read; a pickled checkpoint could run code while it loads.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from data_prep.checkpoint_files import checkpoint_files
from data_prep.families import BaseFormat, HubPlace, Problem, format_of, formats, read_config
from data_prep.hub_reach import asked_once
from data_prep.lm_spec import LMSpec
from data_prep.move import Move
from data_prep.typed_paths import is_file, is_folder

if TYPE_CHECKING:
    from torch import Tensor

DEBUG_BASES = ("debug", "debug-stereo", "debug-melody", "debug-stereo-melody", "debug-mrt2")


@dataclass(frozen=True)
class BaseFiles:
    """A base model on disk. `revision` is the commit on the hub it came from, None for anything else."""

    id: str
    revision: str | None
    folder: Path
    move: Move = field(default_factory=Move)
    """What it is moved to by an adapter, or for one."""

    @cached_property
    def format(self) -> BaseFormat:
        """How its family lays out files.

        Raises:
            UserError: no known family recognises the folder.
        """
        check_folder(self.folder, self.id)
        found = format_of(self.folder)
        assert found is not None
        return found

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Its config.json as it stands; empty for a family without one."""
        return read_config(self.folder)

    @cached_property
    def own_spec(self) -> LMSpec:
        """The base as it was published, whatever it is moved to."""
        return self.format.spec(self.folder, self.config)

    @cached_property
    def spec(self) -> LMSpec:
        """The language model and the codec it speaks, in numbers."""
        return self.move.applied(self.own_spec)

    @property
    def own(self) -> "BaseFiles":
        """The base as it was published."""
        return replace(self, move=Move()) if self.move else self

    def moved(self, move: Move) -> "BaseFiles":
        """The same files, moved so; a pattern that is the base's own is no move.

        Raises:
            UserError: bases of this family cannot be moved to that.
        """
        own = self.own_spec
        if move.pattern is not None and move.codec is None and move.pattern.is_own(own.lags, own.channels):
            move = replace(move, pattern=None)
        unmovable = [part for part in move.parts if part not in self.format.movable]
        if unmovable:
            raise UserError(
                f"A base of the family {own.family} cannot be moved to another {unmovable[0]}.",
                where=self.id,
                fix="Use a MusicGen base, or the starter.",
            )
        return replace(self, move=move)

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors files that hold its weights; a codec's own folder belongs to no family."""
        format = format_of(self.folder)
        return checkpoint_files(self.folder) if format is None else format.weight_files(self.folder)


def resolve_base(id: str, revision: str | None = None) -> BaseFiles:
    """Find the base's files, fetching or making them where needed, and check that they can be used.

    Raises:
        UserError: not found, no access, no network, no space, pickled weights only, or another architecture.
    """
    if id in DEBUG_BASES:
        files = BaseFiles(id, None, _debug_folder(id))
    elif id == "starter":
        files = BaseFiles(id, None, _starter_folder())
    elif is_folder(id) or (id.endswith(".safetensors") and is_file(id)):
        files = BaseFiles(id, None, Path(id).expanduser().resolve())
    else:
        files = from_hub(id, revision)
    check_folder(files.folder, id)
    return files


def load_tensors(files: BaseFiles, prefix: str) -> "dict[str, Tensor]":
    """Read the tensors whose names start with `prefix`, without the prefix (`decoder` and `decoder.` mean the same).

    Only those are read from disk. `""` means all.

    Raises:
        UserError: no tensor has this prefix, or a shard is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    start = f"{prefix.rstrip('.')}." if prefix else ""
    tensors = {}
    for shard in files.weight_files:
        try:
            with safe_open(shard, framework="pt") as opened:
                names = [name for name in opened.keys() if name.startswith(start)]  # noqa: SIM118
                tensors.update({name[len(start) :]: opened.get_tensor(name) for name in names})
        except (SafetensorError, OSError) as error:
            raise UserError(
                "The base's weights cannot be read: the file is missing or damaged.",
                where=f"{shard} ({error})",
                fix="Fetch the base again, or copy the folder again.",
            ) from error
    if not tensors:
        raise UserError(
            f"The base holds no weights named `{start}…`.",
            where=str(files.folder),
            fix="Use a complete folder: language model, text encoder and codec belong together.",
        )
    return tensors


def check_folder(folder: Path, id: str) -> None:
    """Refuse a folder that holds no base of a known family in safetensors.

    Raises:
        UserError: says what is missing and what to do.
    """
    problem = next(_problems(folder), None)
    if problem:
        what, fix = problem
        raise UserError(f"Cannot use `{id}` as a base: {what}", where=str(folder), fix=fix)


def _problems(folder: Path) -> Iterator[Problem]:
    """Each reason why the folder cannot be used, with what to do about it, most basic first."""
    format, config = format_of(folder), read_config(folder)
    if format is not None:
        yield from format.problems(folder, config)
        return
    if not config:
        yield (
            "its config.json cannot be read, or there is none.",
            "Give a folder written by `save_pretrained`, or a hub id.",
        )
    known = ", ".join(f"`{format.family}`" for format in formats())
    yield (
        f"its architecture is `{config.get('model_type')}`; Woodshed knows {known}.",
        "Use e.g. facebook/musicgen-small.",
    )


def from_hub(id: str, revision: str | None) -> BaseFiles:
    """Fetch what is needed of a model on the hub, a codec too, or find it in the hub's own cache.

    Raises:
        UserError: not found, no access, no network, or no space.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        place = _place_on_hub(id)
        with asked_once():
            found = snapshot_download(place.repository, revision=revision, allow_patterns=list(place.patterns))
            folder = Path(found)
    except HFValidationError as error:
        raise _not_found(id, "It is neither a folder that exists nor a hub id (`owner/name`).") from error
    except Exception as error:
        raise _hub_error(id, error) from error
    return BaseFiles(id, folder.name, folder / place.inside)


def _place_on_hub(id: str) -> HubPlace:
    own = next((place for format in formats() if (place := format.on_hub(id)) is not None), None)
    return own or HubPlace(id, tuple(sorted({pattern for format in formats() for pattern in format.needed_files})))


def _not_found(id: str, where: str) -> UserError:
    return UserError(
        f"There is no base `{id}`.",
        where=where,
        fix="Check the spelling; a local folder must hold config.json and model.safetensors. "
        "`starter` and `debug` work anywhere.",
    )


def _hub_error(id: str, error: Exception) -> Exception:
    """What a failed download means for the person; errors nobody foresaw come back as they are."""
    import httpx
    from huggingface_hub import errors

    offline = (
        "Connect to the network, or give --base a folder with the same files; `--base starter`, a small model that "
        "comes with Woodshed, and `--base debug` need neither."
    )
    if isinstance(error, errors.GatedRepoError):
        return UserError(
            f"Access to `{id}` must be granted first.",
            where=f"https://huggingface.co/{id}",
            fix="Accept its terms on that page, then `hf auth login`.",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"`{id}` has no such revision.", where=str(error), fix="Give a commit or a tag that exists.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return _not_found(id, f"https://huggingface.co/{id} does not exist, or is private.")
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, httpx.TransportError)):
        return UserError(f"`{id}` is not on this machine and the hub cannot be reached.", where=str(error), fix=offline)
    if isinstance(error, OSError):
        return UserError(f"`{id}` could not be stored.", where=str(error), fix="Free some disk space, or set HF_HOME.")
    return error


def cache_folder() -> Path:
    """Where Woodshed keeps what it can make again: $WOODSHED_CACHE, else below the user's cache folder."""
    own = os.environ.get("WOODSHED_CACHE")
    shared = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(own) if own else shared / "woodshed"


def _debug_folder(id: str) -> Path:
    from data_prep.debug_base import cached_debug_base
    from data_prep.magenta_rt2.debug_base import cached_debug_mrt2

    if "mrt2" in id:
        return cached_debug_mrt2(cache_folder())
    return cached_debug_base(cache_folder(), audio_channels=2 if "stereo" in id else 1, melody="melody" in id)


def _starter_folder() -> Path:
    folder = Path(__file__).resolve().parent.parent / "starter" / "weights"
    if not folder.is_dir():
        raise UserError(
            "The starter base is not part of this installation.",
            where=str(folder),
            fix="Use --base debug to try things out, or a hub id such as facebook/musicgen-small.",
        )
    return folder
