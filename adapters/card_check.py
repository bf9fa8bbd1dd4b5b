"""Is this adapter ready to be shown to others? Its card and settings are checked before anything is uploaded."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapters.adapter_files import CARD, Adapter
from adapters.card import HUB_ID, WITH_WOODSHED
from adapters.printable import short
from configs.errors import UserError

MAX_FRONT_MATTER = 20_000


def check_card(folder: Path, adapter: Adapter) -> None:
    """Refuse a card that the hub would not understand, that names another base, or that would tell a path of one's own.

    Raises:
        UserError: every problem at once.
    """
    problems = list(_problems(folder, adapter))
    if problems:
        raise UserError(
            "This adapter is not ready to be shared:\n  " + "\n  ".join(problems),
            where=str(folder / CARD),
            fix="Mend this in the card's front matter (the lines between the two ---), and give the command again; "
            "`woodshed bundle` makes one file of it as it is.",
        )


def front_matter(text: str) -> dict[str, Any]:
    """What a card's first block says.

    Raises:
        ValueError: there is none, or it is not YAML of plain fields.
    """
    import yaml

    start, _, rest = text.partition("\n")
    block, end, _ = rest.partition("\n---\n")
    if start.strip() != "---" or not end or len(block) > MAX_FRONT_MATTER:
        raise ValueError("it does not begin with a block between two lines of ---")
    if any(isinstance(event, yaml.AliasEvent) for event in _events(block)):
        raise ValueError("its front matter has aliases")
    try:
        fields = yaml.safe_load(block)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError("its front matter is not YAML of plain fields") from error
    if not isinstance(fields, dict):
        raise ValueError("its front matter holds no fields")
    return fields


def _events(block: str) -> Iterator[Any]:
    import yaml

    try:
        yield from yaml.parse(block, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError("its front matter is not valid YAML") from error


def _problems(folder: Path, adapter: Adapter) -> Iterator[str]:
    try:
        fields = front_matter((folder / CARD).read_text(encoding="utf-8"))
    except OSError:
        yield f"it has no {CARD}; `woodshed convert {folder} --to peft` writes an adapter with one"
        return
    except ValueError as error:
        yield f"{CARD}: {error}"
        return
    yield from _about_base(fields, adapter)
    if not isinstance(fields.get("license"), str) or not fields["license"].strip():
        yield "license: missing; an adapter inherits its base's (cc-by-nc-4.0 for MusicGen)"
    elif adapter.woodshed is not None and fields["license"] != adapter.woodshed.license:
        yield f"license: the card says {short(fields['license'])}, woodshed.json {adapter.woodshed.license}"
    if fields.get("library_name") != "peft":
        yield "library_name: must be peft, so that the hub shows how to load it"
    yield from _about_samples(fields, folder)


def _about_base(fields: Mapping[str, Any], adapter: Adapter) -> Iterator[str]:
    base = fields.get("base_model")
    own = adapter.base_id
    if own == "starter" and base is None:
        pass  # everybody who has Woodshed has it, and the card says so
    elif own in WITH_WOODSHED and own != "starter":
        yield f"base: {own} is a random model to try commands with; an adapter for it is noise to everybody else"
    elif not isinstance(base, str) or not HUB_ID.fullmatch(base):
        folder = "" if HUB_ID.fullmatch(own) or not own else f" ({short(own)} is a folder that only you have)"
        yield f"base_model: must be the base's id on the hub, facebook/musicgen-small say, for others to find{folder}"
    elif HUB_ID.fullmatch(adapter.base_id) and base != adapter.base_id:
        yield f"base_model: the card says {base}, the adapter was made for {adapter.base_id}"
    named = adapter.config.get("base_model_name_or_path")
    if isinstance(named, str) and (named.startswith(("/", "~", ".")) or "\\" in named or named.count("/") > 1):
        yield "adapter_config.json: base_model_name_or_path is a folder of this machine; put the base's hub id there"


def _about_samples(fields: Mapping[str, Any], folder: Path) -> Iterator[str]:
    widget = fields.get("widget")
    for item in widget if isinstance(widget, list) else []:
        output = item.get("output") if isinstance(item, dict) else None
        url = output.get("url") if isinstance(output, dict) else None
        if isinstance(url, str) and "://" not in url and not (folder / url).is_file():
            yield f"widget: {short(url)} is not there"
