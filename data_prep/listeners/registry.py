"""Which listeners there are. A new one is a file with a class that keeps to the port, and a line in `LISTENERS`."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from configs.errors import UserError
from configs.listeners import ListenerSettings
from data_prep.listeners.listener import Listener
from data_prep.listeners.model_files import WHERE


@dataclass(frozen=True)
class Wanted:
    """One entry of `captions.listeners.use`: `name`, or `name:model` with a hub id or folder."""

    name: str
    model: str = ""


Maker = Callable[[Wanted, ListenerSettings, str], Listener]
"""From what is wanted, the settings and a device: a loaded listener."""


def parse_wanted(entries: list[str]) -> list[Wanted]:
    """Read `captions.listeners.use`, each listener once.

    Raises:
        UserError: no such listener, with the nearest name.
    """
    wanted = []
    for entry in entries:
        name, _, model = entry.strip().partition(":")
        if name not in LISTENERS:
            near = difflib.get_close_matches(name, LISTENERS, n=1)
            guess = f"did you mean {near[0]}? " if near else ""
            raise UserError(
                f"There is no listener {name!r}.", where=WHERE, fix=f"{guess}There are: {', '.join(LISTENERS)}."
            )
        wanted.append(Wanted(name, model))
    return list(dict.fromkeys(wanted))


def load_listener(wanted: Wanted, settings: ListenerSettings, device: str = "cpu") -> Listener:
    """Load one listener.

    Raises:
        UserError: its weights are out of reach or cannot be used.
    """
    return LISTENERS[wanted.name](wanted, settings, device)


def _musicnn(wanted: Wanted, settings: ListenerSettings, device: str) -> Listener:
    from data_prep.listeners.musicnn.tagger import Tagger

    if wanted.model:
        raise UserError("musicnn comes with Woodshed: it takes no model.", where=WHERE, fix="Write `musicnn` alone.")
    return Tagger()


def _clap(wanted: Wanted, settings: ListenerSettings, device: str) -> Listener:
    from data_prep.listeners.clap import Clap, read_words

    words = read_words(settings.clap_words) if settings.clap_words else None
    return Clap(wanted.model, words, device)


def _writer(name: str, wanted: Wanted, settings: ListenerSettings, device: str) -> Listener:
    from data_prep.listeners.audio_lm import AudioLanguageModel

    return AudioLanguageModel(name, wanted.model, settings, device)


LISTENERS: dict[str, Maker] = {
    "musicnn": _musicnn,
    "clap": _clap,
    "qwen2-audio": partial(_writer, "qwen2-audio"),
    "qwen2.5-omni": partial(_writer, "qwen2.5-omni"),
    "music-flamingo": partial(_writer, "music-flamingo"),
}
"""Name → what loads it."""
