"""Where a base model's files are: a hub id, a local folder, `debug` or `starter` becomes a folder with checked files.

Knows names and files, not models: the codec, the text encoder and the LM each read only their own tensors from here.
Only safetensors are read; a pickled checkpoint could run code while it loads.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from data_prep import weight_file
from data_prep.hub_reach import asked_once
from data_prep.known_remarks import drop_known_remarks
from data_prep.typed_paths import is_folder

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import MusicgenConfig

NEEDED_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "model*.safetensors",
    "model.safetensors.index.json",
)
# Old checkpoints hold the sinusoidal position table; it is computed from the configuration, not learnt.
DERIVED_TENSORS = ("decoder.model.decoder.embed_positions.weights",)


@dataclass(frozen=True)
class BaseFiles:
    """A base model on disk. `revision` is the commit on the hub it came from, None for anything else."""

    id: str
    revision: str | None
    folder: Path

    @cached_property
    def config(self) -> "MusicgenConfig":
        """The whole model's configuration."""
        from transformers import MusicgenConfig

        drop_known_remarks()
        return MusicgenConfig.from_pretrained(self.folder, trust_remote_code=False)

    @property
    def audio_channels(self) -> int:
        """1 (mono) or 2 (stereo)."""
        return self._decoder.audio_channels

    @property
    def n_codebooks(self) -> int:
        """K: 4 in mono, 8 in stereo."""
        return self._decoder.num_codebooks

    @property
    def card(self) -> int:
        """Codebook size; the id `card` itself is the special token."""
        return self._decoder.vocab_size

    @property
    def frame_rate(self) -> int:
        """Codec frames per second."""
        return self.config.audio_encoder.frame_rate  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]

    @property
    def sample_rate_hz(self) -> int:
        """Samples per second of the audio that the codec reads and writes."""
        return self.config.audio_encoder.sampling_rate  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]

    @property
    def _decoder(self) -> Any:
        return self.config.decoder


def resolve_base(id: str, revision: str | None = None) -> BaseFiles:
    """Find the base's files, fetching or making them where needed, and check that they can be used.

    Raises:
        UserError: not found, no access, no network, no space, pickled weights only, or another architecture.
    """
    if id in ("debug", "debug-stereo"):
        files = BaseFiles(id, None, _debug_folder(channels=2 if id == "debug-stereo" else 1))
    elif id == "starter":
        files = BaseFiles(id, None, _starter_folder())
    elif is_folder(id):
        files = BaseFiles(id, None, Path(id).expanduser().resolve())
    else:
        files = _from_hub(id, revision)
    check_folder(files.folder, id)
    return files


def load_tensors(files: BaseFiles, prefix: str) -> "dict[str, Tensor]":
    """Read the tensors whose names start with `prefix`, without the prefix (`decoder` and `decoder.` mean the same).

    Only those are read from disk. `""` means all. Tables that follow from the configuration are left out.

    Raises:
        UserError: no tensor has this prefix, or a shard is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    start = f"{prefix.rstrip('.')}." if prefix else ""
    tensors = {}
    for shard in weight_files(files.folder):
        try:
            with safe_open(shard, framework="pt") as opened:
                names = [n for n in opened.keys() if n.startswith(start) and n not in DERIVED_TENSORS]  # noqa: SIM118
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
            fix="Use a complete MusicGen folder: decoder, text encoder and audio encoder in one checkpoint.",
        )
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: the shards of its index, or its one file.

    Raises:
        UserError: the index cannot be read, or is none.
    """
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return [folder / "model.safetensors"]
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        return [folder / name for name in names]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"The list of the base's weights, {index.name}, cannot be read.",
            where=f"{index} ({type(error).__name__}: {error})",
            fix="Fetch or copy it again.",
        ) from error


def check_folder(folder: Path, id: str) -> None:
    """Refuse a folder that is not a text-to-music MusicGen in safetensors.

    Raises:
        UserError: says what is missing and what to do.
    """
    problem = next(_problems(folder), None)
    if problem:
        what, fix = problem
        raise UserError(f"Cannot use `{id}` as a base: {what}", where=str(folder), fix=fix)


def _problems(folder: Path) -> Iterator[tuple[str, str]]:
    """Each reason why the folder cannot be used, with what to do about it, most basic first."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        yield f"its config.json cannot be read ({error}).", "Give a folder written by `save_pretrained`, or a hub id."
        return
    kind = config.get("model_type")
    if kind == "musicgen_melody":
        yield (
            "it is a melody-conditioned MusicGen, which Woodshed does not support yet.",
            "Use a text-to-music one, e.g. facebook/musicgen-medium or facebook/musicgen-stereo-medium.",
        )
    if kind != "musicgen":
        yield (
            f"its architecture is `{kind}`, not `musicgen`.",
            "Use a MusicGen checkpoint, e.g. facebook/musicgen-small.",
        )
    present = [path.exists() for path in weight_files(folder)]
    if not all(present) and list(folder.glob("*.bin")):
        yield (
            "its weights are pickled (.bin), which could run code while loading.",
            "Convert them once, where you trust the file: `MusicgenForConditionalGeneration.from_pretrained(folder)"
            ".save_pretrained(new_folder)` and the same for its AutoProcessor; then give the new folder.",
        )
    if not all(present):
        yield "its model.safetensors, or a shard of it, is missing.", "Fetch or copy it again."
    yield from filter(None, map(weight_file.problem, weight_files(folder)))
    if not list(folder.glob("tokenizer*")) and not (folder / "spiece.model").exists():
        yield "its tokenizer files are missing.", "Copy tokenizer.json and tokenizer_config.json beside config.json."


def _from_hub(id: str, revision: str | None) -> BaseFiles:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        with asked_once():
            folder = Path(snapshot_download(id, revision=revision, allow_patterns=list(NEEDED_FILES)))
    except HFValidationError as error:
        raise _not_found(id, "It is neither a folder that exists nor a hub id (`owner/name`).") from error
    except Exception as error:
        raise _hub_error(id, error) from error
    return BaseFiles(id, folder.name, folder)


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


def _debug_folder(channels: int) -> Path:
    from data_prep.debug_base import cached_debug_base

    return cached_debug_base(cache_folder(), audio_channels=channels)


def _starter_folder() -> Path:
    folder = Path(__file__).resolve().parent.parent / "starter" / "weights"
    if not folder.is_dir():
        raise UserError(
            "The starter base is not part of this installation.",
            where=str(folder),
            fix="Use --base debug to try things out, or a hub id such as facebook/musicgen-small.",
        )
    return folder
