"""Which files hold the weights of a checkpoint in transformers' layout."""

import json
from pathlib import Path

from configs.errors import UserError

INDEX = "model.safetensors.index.json"


def checkpoint_files(folder: Path) -> list[Path]:
    """The safetensors files of a transformers checkpoint: the shards of its index, or its one file.

    Raises:
        UserError: the index cannot be read, or is none.
    """
    index = folder / INDEX
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
