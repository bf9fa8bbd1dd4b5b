"""One stream that many may listen to and play: everybody says what they want, and one thread makes it.

Every method here may be called from any thread and returns at once. What is wanted is one value (`Controls`), replaced
as a whole; `worker.py` follows it while it makes music.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.play_along import ContextTrack
from adapters.sampler import Sampler
from configs.errors import UserError
from finetune.live.audience import Audience, Listener
from finetune.live.controls import Controls, Moment, Weighted, chaos
from finetune.live.keys import Drums, Others
from finetune.live.pace import Pace
from finetune.live.recorder import Recorder
from finetune.live.wanted import Wanted
from finetune.live.worker import Worker


@dataclass(frozen=True)
class About:
    """What is played, for pages and recordings."""

    base: str
    revision: str | None
    adapters: Sequence[str]
    """Those whose strength can be set."""
    sample_rate_hz: int
    channels: int
    forced: Sequence[str] = ()
    """What was let pass though it does not quite fit."""
    plays: Collection[str] = ()
    """What else the base follows, of `notes` and `drums`."""
    context: str | None = None
    """The name of the recording that is played along with."""


class LiveSession:
    """An endless piece to be played. `load` reads the model: at `start`, and again after it was given back."""

    def __init__(
        self,
        load: Callable[[], Sampler],
        about: About,
        controls: Controls,
        *,
        seed: int = 0,
        idle_sec: float = 10.0,
        folder: Path = Path("out"),
        sampler: Sampler | None = None,
        context: ContextTrack | None = None,
    ) -> None:
        self.about = about
        self.wanted = Wanted(controls, seed)
        self.audience = Audience(self.wanted.changed)
        self.recorder = Recorder(folder, self.audience.tell)
        self.worker = Worker(
            load,
            self.wanted,
            self.audience,
            self.recorder,
            about={"base": about.base, "revision": about.revision, "with": about.context},
            idle_sec=idle_sec,
            sampler=sampler,
            context=context,
        )

    @property
    def controls(self) -> Controls:
        """As they are set."""
        return self.wanted.controls

    def start(self) -> None:
        """Play, or go on."""
        self._play(True)

    def stop(self) -> None:
        """Silence at once; `start` goes on where it stopped."""
        self._play(False)

    def reset(self, seed: int | None = None) -> None:
        """Begin another piece from its first sample, with this seed or the same one. Controls stay as they are."""
        with self.wanted.changed:
            self.wanted.seed = self.wanted.seed if seed is None else seed
            self.wanted.restart = True
            self._tell_everybody()

    def set_prompts(self, prompts: Sequence[tuple[str, float]], fade_sec: float | None = None) -> None:
        """These texts with these weights, faded to from what plays. A story ends.

        Raises:
            UserError: see `checked_prompts`.
        """
        mix = [Weighted(text, float(weight)) for text, weight in prompts]
        self._set(lambda controls: controls.with_prompts(mix, fade_sec))

    def set_weight(self, number: int, weight: float) -> None:
        """Another weight for the prompt of this number, from 0 on.

        Raises:
            UserError: there is no such prompt; see also `checked_prompts`.
        """
        self._set(lambda controls: controls.with_weight(number, float(weight)))

    def set_story(self, moments: Sequence[tuple[float, str]]) -> None:
        """Texts that take over one after the other, counted from now; none ends the story.

        Raises:
            UserError: see `checked_story`.
        """
        story = [Moment(float(second), text) for second, text in moments]
        self._set(lambda controls: controls.with_story(story))

    def set_strength(self, adapter: str, strength: float) -> None:
        """How strong an adapter sounds.

        Raises:
            UserError: there is no such adapter, or the number is out of range.
        """
        if adapter not in self.about.adapters:
            known = ", ".join(self.about.adapters) or "none"
            raise UserError(f"no adapter is called {adapter!r}", fix=f"loaded are: {known}")
        self._set(lambda controls: controls.with_strength(adapter, strength))

    def set_sampling(self, **changes: float | int) -> None:
        """Any of guidance (1 to 20), temperature (0 to 10), top_k (0: all) and top_p (0: all).

        Raises:
            UserError: a value out of range.
        """
        self._set(lambda controls: controls.with_settings(**changes))

    def set_chaos(self, amount: float) -> None:
        """Temperature and top_k together: 0 calm, 0.5 the usual, 1 wild.

        Raises:
            UserError: out of range.
        """
        self.set_sampling(**chaos(amount))

    def set_pace(self, *, chunk_sec: float | None = None, buffer_sec: float | None = None) -> None:
        """How much is made at once, and how much ahead of the ear.

        Raises:
            UserError: out of range.
        """
        given = {"chunk_sec": chunk_sec, "buffer_sec": buffer_sec}
        self.set_sampling(**{name: value for name, value in given.items() if value is not None})

    def set_notes(self, pitches: Collection[int], others: Others | None = None) -> None:
        """Hold these keys (MIDI pitches) and no others; one that was not held before is struck.

        `others`: the notes that nobody holds are the model's own affair (`free`), or silent.

        Raises:
            UserError: the base follows no notes; a pitch that does not exist.
        """
        self._needs("notes")
        self._set(lambda controls: controls.with_notes(pitches, others))

    def set_drums(self, drums: Drums) -> None:
        """`on`, `off`, or `free`: as the model likes.

        Raises:
            UserError: the base does not follow that.
        """
        self._needs("drums")
        self._set(lambda controls: controls.with_drums(drums))

    def set_context_level(self, level: float) -> None:
        """How loud the recording is that is played along with: 0 (the part alone) to 2; 1 is as it is.

        Raises:
            UserError: there is no recording; out of range.
        """
        if self.about.context is None:
            raise UserError("nothing is played along with", fix="woodshed live ADAPTER --with FILE")
        self._set(lambda controls: controls.with_context_level(level))

    def record(self, on: bool) -> None:
        """Begin or end a recording; `recorded` is told when its file is whole."""
        with self.wanted.changed:
            self.wanted.recording = on
            self._tell_everybody()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Hear every chunk and message from now on; call what comes back to leave."""
        return self.audience.subscribe(listener)

    def tell(self, message: dict[str, Any]) -> None:
        """Send every listener a message."""
        self.audience.tell(message)

    def state(self) -> dict[str, Any]:
        """Everything that is set, as a message."""
        return self.wanted.as_message()

    def pace(self) -> Pace:
        """How it keeps up."""
        return self.worker.pace()

    def close(self) -> None:
        """End everything: the recording is finished, the model given back."""
        with self.wanted.changed:
            self.wanted.closing = True
            self.wanted.changed.notify_all()
        self.worker.join()

    def _play(self, playing: bool) -> None:
        with self.wanted.changed:
            self.wanted.playing = playing
            (self.worker.clock.resume if playing else self.worker.clock.pause)()
            self._tell_everybody()

    def _set(self, change: Callable[[Controls], Controls]) -> None:
        with self.wanted.changed:
            self.wanted.controls = change(self.wanted.controls)
            self.worker.clock.begin_sec = self.wanted.controls.buffer_sec
            if self.wanted.playing:
                self.wanted.ask()
            self._tell_everybody()

    def _needs(self, kind: str) -> None:
        if kind not in self.about.plays:
            raise UserError(f"{self.about.base} does not follow {kind}", fix="Magenta RealTime 2 does")

    def _tell_everybody(self) -> None:
        self.wanted.changed.notify_all()
        self.audience.tell(self.wanted.as_message())
