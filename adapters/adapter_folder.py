"""The files of an adapter's folder, and whether there is one: light enough to ask before torch is imported."""

from pathlib import Path

from adapters.safe_files import PICKLE_NAMES, check_header
from configs.errors import UserError
from data_prep.typed_paths import is_file, is_folder

WEIGHTS, CONFIG, DESCRIPTION, CARD = "adapter_model.safetensors", "adapter_config.json", "woodshed.json", "README.md"
CONDITIONS = "conditions.safetensors"
"""Weights of conditions that it adds to the base's own; only some adapters have it."""


def find_weights(folder: Path) -> Path:
    """The adapter's safetensors file, its header checked.

    Raises:
        UserError: the folder is not there, holds a pickle instead, or no adapter at all.
    """
    weights = folder / WEIGHTS
    if not is_folder(folder):
        raise UserError(f"There is no adapter folder {folder}.", fix="Give the folder that holds adapter_config.json.")
    if not is_file(weights):
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLE_NAMES)
        if pickles:
            check_header(folder / pickles[0])
        raise UserError(
            f"{folder} holds no adapter: {WEIGHTS} is missing.",
            fix="Give the folder that holds it: `adapter` inside a run, or a folder fetched from the hub.",
        )
    check_header(weights)
    return weights
