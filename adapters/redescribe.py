"""Change what an adapter says of itself, and nothing else: woodshed.json and the card, each written beside, then
renamed.
"""

from collections.abc import Mapping
from pathlib import Path

from adapters.adapter_files import CARD, DESCRIPTION
from adapters.card import card
from adapters.card_check import front_matter
from adapters.low_rank import LowRank
from adapters.metadata import Woodshed
from adapters.shareable import SAMPLE
from configs.errors import UserError


def redescribe(folder: Path, woodshed: Woodshed, updates: Mapping[str, LowRank]) -> None:
    """Write another description into an adapter's folder. The samples that its card names stay in it.

    Raises:
        UserError: the folder cannot be written to.
    """
    samples, base_samples = samples_of(folder)
    texts = {
        DESCRIPTION: woodshed.as_json(),
        CARD: card(woodshed, updates, samples, base_samples),
    }
    try:
        for name, text in texts.items():
            beside = folder / f".{name}.partial"
            beside.write_text(text, encoding="utf-8")
            beside.replace(folder / name)
    except OSError as error:
        raise UserError(f"The adapter cannot be written to: {error.strerror}.", where=str(folder)) from error


def samples_of(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Prompt → audio file of the adapter and of the base, as far as the card names them and they are there."""
    try:
        fields = front_matter((folder / CARD).read_text(encoding="utf-8"))
        listed = [(entry["text"], entry["output"]["url"]) for entry in fields.get("widget") or []]
    except (OSError, ValueError, KeyError, TypeError):
        return {}, {}
    known = [(str(words), str(file)) for words, file in listed if SAMPLE.fullmatch(str(file))]
    samples = {words: file for words, file in known if (folder / file).is_file()}
    beside = {
        words: str(Path(file).with_name(f"{Path(file).stem}-base{Path(file).suffix}"))
        for words, file in samples.items()
    }
    return samples, {words: file for words, file in beside.items() if (folder / file).is_file()}
