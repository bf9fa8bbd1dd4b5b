"""Where the weights of a listener are: a folder, or what the hub has under an id, fetched once.

Only safetensors, configuration and tokenizer files are fetched and read: a pickled checkpoint could run code while it
loads, and so could code that comes with a model, which is never used.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from data_prep import weight_file

_PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
_PIECES, _PIECE_BYTES = 64, 4096
WHERE = "captions.listeners.use"


def model_folder(model: str, name: str, types: Sequence[str]) -> Path:
    """The folder with a model that a listener can use.

    Args:
        model: hub id, or folder.
        name: the listener it is for.
        types: the values of `model_type` in config.json that it can use.

    Raises:
        UserError: not found, out of reach, pickled weights only, damaged, or another kind of model.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        folder = _from_hub(model, name)
    found = _config(folder, name).get("model_type")
    if found not in types:
        raise _unusable(name, folder, f"its model_type is {found!r}, not {' or '.join(types)}")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        raise _unusable(name, folder, "it holds pickled weights only" if pickled else "it holds no *.safetensors")
    for path in weights:
        problem = weight_file.problem(path)
        if problem:
            raise _unusable(name, folder, " ".join(problem))
    return folder


def weights_identity(folder: Path) -> str:
    """A short name for what a model will answer: a hash over its configuration and pieces of its weights' files.

    64 pieces of 4 KB each, evenly over each file: two trainings of one model differ nearly everywhere, and a file of
    many gigabytes need not be read whole.
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for index in range(_PIECES):
                file.seek(index * max(0, size - _PIECE_BYTES) // (_PIECES - 1))
                digest.update(file.read(_PIECE_BYTES))
    return digest.hexdigest()[:16]


def _config(folder: Path, name: str) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(name, folder, f"its config.json cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise _unusable(name, folder, "its config.json holds no JSON object")
    return config


def _unusable(name: str, folder: Path, why: str) -> UserError:
    fix = (
        "Give a hub id, or a folder as `save_pretrained` of a transformers model and its processor writes it. Pickled "
        "weights (.bin) can be converted so, once, where you trust the file."
    )
    return UserError(f"The listener {name} cannot use this model: {why}.", where=str(folder), fix=fix)


def _from_hub(model: str, name: str) -> Path:
    import httpx
    from huggingface_hub import errors, snapshot_download

    offline = (
        f"Connect to the network once (the weights are kept), or give a folder: {name}:path/to/folder, "
        "or listen with musicnn, which comes with Woodshed."
    )
    where = f"{WHERE}: {name}"
    try:
        return Path(snapshot_download(model, allow_patterns=list(_PATTERNS)))
    except errors.HFValidationError as error:
        raise UserError(
            f"There is no model {model!r} for {name}.",
            where=where,
            fix="Give a folder that exists or a hub id (`owner/name`).",
        ) from error
    except errors.GatedRepoError as error:
        fix = f"Accept its terms on https://huggingface.co/{model}, then `hf auth login`."
        raise UserError(f"Access to `{model}` must be granted first.", where=where, fix=fix) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"`{model}` is not on the hub, or private.", where=where, fix="Check the spelling, or give a folder."
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, httpx.TransportError) as error:
        raise UserError(
            f"`{model}` is not on this machine and the hub cannot be reached.", where=where, fix=offline
        ) from error
    except OSError as error:
        fix = "Free some disk space, or set HF_HOME."
        raise UserError(f"`{model}` could not be stored.", where=f"{where}: {error}", fix=fix) from error
