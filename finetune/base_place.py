"""Where a local base is now. Its fingerprint is what it is; its folder's name is only where it lay once."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.safe_files import read_json
from configs.errors import UserError
from data_prep.base_files import DEBUG_BASES
from data_prep.typed_paths import is_folder, is_there

if TYPE_CHECKING:
    from adapters.adapter_files import Adapter

BUILT_IN = (*DEBUG_BASES, "starter")


def place_of(name: str | None, stood: dict[str, Any]) -> str | None:
    """The base of a run that goes on: its folder of then, or its name where that is a folder seen from here.

    `stood` is what the run wrote down of its base. Whether it is the same base is for the fingerprint to say.

    Raises:
        UserError: it was a local folder, and is at neither place.
    """
    folder = stood.get("folder")
    if name is None or not folder:
        return name
    for place in (folder, name):
        if is_there(place):
            return place
    raise _gone(name, f"it was at {folder}")


def base_of_adapter(adapter: "Adapter") -> tuple[str, str | None]:
    """Id and revision of the base that an adapter names; for a local one, the folder that its run beside it knows.

    Raises:
        UserError: it names none, or a local folder that is not known here.
    """
    name = adapter.base_id
    if not name:
        raise UserError(
            "This adapter does not say which base it belongs to.", where=str(adapter.folder), fix="Add --base."
        )
    if name in BUILT_IN or "/" in name or is_folder(name):
        return name, adapter.revision
    folder = _told_by_run(adapter.folder)
    if folder is None or Path(folder).name != name or not is_folder(folder):
        raise _gone(name, str(adapter.folder))
    return folder, None


def _told_by_run(adapter: Path | None) -> str | None:
    """The base's folder as versions.json of the run says, in which the adapter lies."""
    try:
        folder = read_json((adapter or Path()).resolve().parent / "versions.json")["base"]["folder"]
    except (UserError, KeyError, TypeError, json.JSONDecodeError):
        return None
    return folder if isinstance(folder, str) else None


def _gone(name: str, where: str) -> UserError:
    return UserError(
        f"The base {name} was a folder on some machine, and is not known here.",
        where=where,
        fix="Add --base and the folder where it is now: it is known by its fingerprint, whatever it is called.",
    )
