"""Which listeners there are. A new one is a file with a class that keeps to the port, and a line in `LISTENERS`."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from configs.errors import UserError
from configs.listeners import ListenerSettings
from data_prep.listeners.listener import Listener
from data_prep.listeners.model_files import WHERE


@dataclass(frozen=True)
class Wanted:
    """One entry of `captions.listeners.use`: `name`, or `name:model` with a hub id or folder."""

    name: str
    model: str = ""


@dataclass(frozen=True)
class Entry:
    """How a listener is loaded, onto a device, and what its answers depend on, which is told without loading it."""

    load: Callable[[Wanted, ListenerSettings, str], Listener]
    fingerprint: Callable[[Wanted, ListenerSettings], str]


def parse_wanted(entries: list[str]) -> list[Wanted]:
    """Read `captions.listeners.use`, each listener once.

    Raises:
        UserError: no such listener, with the nearest name; or one is named twice with different models.
    """
    wanted: dict[str, Wanted] = {}
    for entry in entries:
        name, _, model = entry.strip().partition(":")
        if name not in LISTENERS:
            near = difflib.get_close_matches(name, LISTENERS, n=1)
            guess = f"did you mean {near[0]}? " if near else ""
            raise UserError(
                f"There is no listener {name!r}.", where=WHERE, fix=f"{guess}There are: {', '.join(LISTENERS)}."
            )
        if wanted.setdefault(name, Wanted(name, model)).model != model:
            raise UserError(f"{name} is named twice, with different models.", where=WHERE, fix="Name one of them.")
    return list(wanted.values())


def load_listener(wanted: Wanted, settings: ListenerSettings, device: str = "cpu") -> Listener:
    """Load one listener.

    Raises:
        UserError: its weights are out of reach or cannot be used.
    """
    return LISTENERS[wanted.name].load(wanted, settings, device)


def listener_fingerprint(wanted: Wanted, settings: ListenerSettings) -> str:
    """The fingerprint that the loaded listener would have.

    Raises:
        UserError: its weights are out of reach or cannot be used.
    """
    return LISTENERS[wanted.name].fingerprint(wanted, settings)


def _musicnn() -> Entry:
    def load(wanted: Wanted, settings: ListenerSettings, device: str) -> Listener:
        from data_prep.listeners.musicnn.tagger import Tagger

        return Tagger()

    def fingerprint(wanted: Wanted, settings: ListenerSettings) -> str:
        from data_prep.listeners.musicnn.words import FINGERPRINT

        if wanted.model:
            raise UserError(
                "musicnn comes with Woodshed: it takes no model.", where=WHERE, fix="Write `musicnn` alone."
            )
        return FINGERPRINT

    return Entry(load, fingerprint)


def _clap() -> Entry:
    def load(wanted: Wanted, settings: ListenerSettings, device: str) -> Listener:
        from data_prep.listeners.clap import Clap, read_words

        return Clap(wanted.model, read_words(settings.clap_words) if settings.clap_words else None, device)

    def fingerprint(wanted: Wanted, settings: ListenerSettings) -> str:
        from data_prep.listeners import clap

        return clap.fingerprint(wanted.model, clap.read_words(settings.clap_words) if settings.clap_words else None)

    return Entry(load, fingerprint)


def _writer(name: str) -> Entry:
    def load(wanted: Wanted, settings: ListenerSettings, device: str) -> Listener:
        from data_prep.listeners.audio_lm import AudioLanguageModel

        return AudioLanguageModel(name, wanted.model, settings, device)

    def fingerprint(wanted: Wanted, settings: ListenerSettings) -> str:
        from data_prep.listeners import audio_lm

        return audio_lm.fingerprint(name, wanted.model, settings)

    return Entry(load, fingerprint)


LISTENERS = {"musicnn": _musicnn(), "clap": _clap()} | {
    name: _writer(name) for name in ("qwen2-audio", "qwen2.5-omni", "music-flamingo")
}
"""Name → how it is loaded."""
