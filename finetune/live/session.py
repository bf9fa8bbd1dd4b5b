"""One stream that many may listen to and play: a worker thread owns the model, everybody else only says what it wants.

Every method here may be called from any thread. What is wanted is one value (`Controls`), replaced as a whole; the
worker follows it while it makes music. It makes no more than `buffer_sec` ahead of the ear, so that a control is heard
soon, and rests otherwise.
"""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from adapters.audio_out import slug
from adapters.device_memory import let_go
from adapters.sampler import Sampler
from configs.errors import UserError
from finetune.live.controls import (
    MAX_STRENGTH,
    Controls,
    Moment,
    Weighted,
    chaos,
    checked_prompts,
    checked_story,
)
from finetune.live.pace import GAP_REMEMBERED_SEC, Pace, hint
from finetune.live.play_clock import PlayClock
from finetune.live.player import Chunk, Player, TextStates
from finetune.live.recording import LONGEST_SEC, Recording

SAMPLING = ("guidance", "temperature", "top_k", "top_p")
PACE = ("chunk_sec", "buffer_sec")

Event = Chunk | dict[str, Any]
"""Music, or a message as docs/live.md describes them."""
Listener = Callable[[Event], None]
"""Called on the worker's thread, or on that of whoever moved a control; it must return at once."""


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
    ) -> None:
        self.about, self.folder, self.idle_sec = about, folder, idle_sec
        self.controls, self.seed, self.run = controls, seed, 1
        self.playing = False
        self.recordings: dict[str, Path] = {}
        self.clock = PlayClock(controls.buffer_sec)
        self._load, self._sampler = load, sampler
        self._states = None if sampler is None else TextStates(sampler)
        self._player: Player | None = None
        self._recording: Recording | None = None
        self._wants_recording = self._wants_restart = self._closing = False
        self._asked_at: float | None = None
        self._latency_sec: float | None = None
        self._idle_since: float | None = None
        self._listeners: list[Listener] = []
        self._changed = threading.Condition(threading.RLock())
        self._worker = threading.Thread(target=self._work, name="woodshed-live", daemon=True)
        self._worker.start()

    # What anybody may ask for.

    def start(self) -> None:
        """Play, or go on."""
        self._ask(playing=True)

    def stop(self) -> None:
        """Silence at once; `start` goes on where it stopped."""
        self._ask(playing=False)

    def reset(self, seed: int | None = None) -> None:
        """Begin another piece from its first sample, with this seed or the same one. Controls stay as they are."""
        with self._changed:
            self.seed = self.seed if seed is None else seed
            self._wants_restart = True
            self._tell_everybody()

    def set_prompts(self, prompts: Sequence[tuple[str, float]], fade_sec: float | None = None) -> None:
        """These texts with these weights, faded to from what plays. A story ends.

        Raises:
            UserError: see `checked_prompts`.
        """
        wanted = checked_prompts([Weighted(text, float(weight)) for text, weight in prompts])
        fade = {} if fade_sec is None else {"fade_sec": fade_sec}
        self._set({"prompts": wanted, "story": (), **fade})

    def set_weight(self, number: int, weight: float) -> None:
        """Another weight for the prompt of this number, from 0 on.

        Raises:
            UserError: there is no such prompt; see also `checked_prompts`.
        """
        with self._changed:
            prompts = list(self.controls.prompts)
            if not 0 <= number < len(prompts):
                raise UserError(f"there is no prompt number {number}: there are {len(prompts)}, counted from 0")
            prompts[number] = Weighted(prompts[number].text, float(weight))
            self._set({"prompts": checked_prompts(prompts), "story": ()})

    def set_story(self, moments: Sequence[tuple[float, str]]) -> None:
        """Texts that take over one after the other, counted from now; none ends the story.

        Raises:
            UserError: see `checked_story`.
        """
        self._set({"story": checked_story([Moment(float(second), text) for second, text in moments])})

    def set_strength(self, adapter: str, strength: float) -> None:
        """How strong an adapter sounds.

        Raises:
            UserError: there is no such adapter, or the number is out of range.
        """
        if adapter not in self.about.adapters:
            known = ", ".join(self.about.adapters) or "none"
            raise UserError(f"no adapter is called {adapter!r}", fix=f"loaded are: {known}")
        if not abs(strength) <= MAX_STRENGTH:
            raise UserError(f"a strength lies between -{MAX_STRENGTH:g} and {MAX_STRENGTH:g}, not {strength}")
        with self._changed:
            self._set({"strengths": {**self.controls.strengths, adapter: float(strength)}})

    def set_sampling(self, **changes: float | int) -> None:
        """Any of guidance (1 to 20), temperature (0 to 10), top_k (0: all) and top_p (0: all).

        Raises:
            UserError: a value out of range.
        """
        from pydantic import ValidationError

        from configs.live import LiveSettings

        if unknown := sorted(set(changes) - {*SAMPLING, *PACE}):
            raise UserError(f"{unknown[0]!r} cannot change while playing", fix=f"these can: {', '.join(SAMPLING)}")
        try:
            allowed = LiveSettings.model_validate(changes).model_dump(include={*changes})
        except ValidationError as error:
            told = error.errors()[0]
            raise UserError(f"{'.'.join(map(str, told['loc']))}: {told['msg']}") from error
        self._set(allowed)

    def set_chaos(self, amount: float) -> None:
        """Temperature and top_k together: 0 calm, 0.5 the usual, 1 wild.

        Raises:
            UserError: out of range.
        """
        self._set(chaos(amount))

    def set_pace(self, *, chunk_sec: float | None = None, buffer_sec: float | None = None) -> None:
        """How much is made at once, and how much ahead of the ear.

        Raises:
            UserError: out of range.
        """
        given = {"chunk_sec": chunk_sec, "buffer_sec": buffer_sec}
        self.set_sampling(**{name: value for name, value in given.items() if value is not None})

    def record(self, on: bool) -> None:
        """Begin or end a recording; `recorded` is told when its file is whole."""
        with self._changed:
            self._wants_recording = on
            self._changed.notify_all()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Hear every chunk and message from now on; call what comes back to leave."""
        with self._changed:
            self._listeners.append(listener)
            self._idle_since = None
            self._changed.notify_all()

        def leave() -> None:
            with self._changed:
                if listener in self._listeners:
                    self._listeners.remove(listener)
                if not self._listeners:
                    self._idle_since = time.monotonic()
                self._changed.notify_all()

        return leave

    def tell(self, message: dict[str, Any]) -> None:
        """Send every listener a message."""
        with self._changed:
            self._emit(message)

    def state(self) -> dict[str, Any]:
        """Everything that is set, as a message."""
        with self._changed:
            return {
                "type": "state",
                "run": self.run,
                "seed": self.seed,
                "playing": self.playing,
                "recording": self._wants_recording,
                **asdict(self.controls),
            }

    def pace(self) -> Pace:
        """How it keeps up."""
        with self._changed:
            player, sampler, controls = self._player, self._sampler, self.controls
            factor = None if player is None else player.real_time_factor
            gap = self.clock.last_gap
            recent = gap is not None and time.monotonic() - gap < GAP_REMEMBERED_SEC
            window_sec = 0.0 if sampler is None else sampler.settings.window_sec
            label = "" if sampler is None else sampler.label
            return Pace(
                self.playing,
                sampler is not None,
                0.0 if player is None else player.second,
                controls.chunk_sec,
                0.0 if player is None or sampler is None else player.delay_frames / sampler.frame_rate,
                self.clock.level_sec,
                factor,
                self._latency_sec,
                self.clock.gaps,
                self.clock.gap_sec,
                hint(factor, recent, controls, label, window_sec),
            )

    def close(self) -> None:
        """End everything: the recording is finished, the model given back."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._worker.join()

    # The worker's own part.

    def _ask(self, *, playing: bool) -> None:
        with self._changed:
            self.playing = playing
            (self.clock.resume if playing else self.clock.pause)()
            self._tell_everybody()

    def _set(self, changes: Mapping[str, Any]) -> None:
        with self._changed:
            self.controls = replace(self.controls, **changes)
            self.clock.begin_sec = self.controls.buffer_sec
            self._asked_at = self._asked_at or time.monotonic()
            self._tell_everybody()

    def _tell_everybody(self) -> None:
        self._changed.notify_all()
        self._emit(self.state())

    def _emit(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            listener(event)

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            try:
                job()
            except Exception as error:
                self._fail(error)
        self._give_back()

    def _next_job(self) -> Callable[[], None] | None:
        """What the worker does next; waits until there is something. None: the end."""
        with self._changed:
            while not self._closing:
                wait_sec = None
                if self._idle_since is not None and (self._sampler is not None or self.playing):
                    wait_sec = self._idle_since + self.idle_sec - time.monotonic()
                    if wait_sec <= 0:
                        return self._give_back
                if self._wants_restart:
                    return self._restart
                begun = self.playing or self._player is not None or self._recording is not None
                if begun and self._wants_recording != (self._recording is not None):
                    return self._switch_recording
                if self.playing:
                    ahead = self.clock.level_sec - self.controls.buffer_sec
                    if ahead <= 0:
                        return self._play_chunk
                    wait_sec = ahead if wait_sec is None else min(ahead, wait_sec)
                self._changed.wait(wait_sec)
            return None

    def _play_chunk(self) -> None:
        player = self._ready()
        chunk = player.next_chunk()
        with self._changed:
            if chunk.waveform.shape[1]:
                self.clock.push(chunk.waveform.shape[1] / player.rate_hz)
            if self._recording is not None:
                self._recording.write(chunk.waveform.numpy())
                if self._recording.seconds >= LONGEST_SEC:
                    self._finish_recording()  # the next chunk begins another file
        self._emit(chunk)
        self._emit(self.pace().as_message())

    def _ready(self) -> Player:
        """The piece in play, with the model read and the piece begun where that is to be done."""
        if self._sampler is None:
            self._emit({"type": "loading"})
            sampler = self._load()
            with self._changed:
                self._sampler, self._states = sampler, TextStates(sampler)
        if self._player is None:
            assert self._states is not None
            player = Player(
                self._sampler,
                self._states,
                lambda: self.controls,
                seed=self.seed,
                run=self.run,
                applied=self._was_applied,
            )
            with self._changed:
                self._player, self._asked_at, self._latency_sec = player, None, None
        return self._player

    def _was_applied(self, second: float, controls: Controls) -> None:
        """Called where the piece stands when it takes new controls over: they are heard once the ear is there."""
        with self._changed:
            player = self._player
            if player is None:
                return
            if self._asked_at is not None:
                heard_sec = player.second - self.clock.level_sec
                self._latency_sec = max(0.0, time.monotonic() - self._asked_at + second - heard_sec)
                self._asked_at = None
            if self._recording is not None:
                self._recording.note({"second": round(second, 3), **asdict(controls)})

    def _restart(self) -> None:
        with self._changed:
            self._wants_restart = False
            player, self._player = self._player, None
            self.run += 1
            self._new_clock()
            if self._recording is not None:
                self._recording.note({"reset": True, "seed": self.seed})
            self._tell_everybody()
        if player is not None:
            player.close()

    def _new_clock(self) -> None:
        self.clock = PlayClock(self.controls.buffer_sec)
        if not self.playing:
            self.clock.pause()

    def _switch_recording(self) -> None:
        if self._recording is not None:
            self._finish_recording()
            return
        player = self._ready()
        codec = player.sampler.codec
        assert codec is not None
        about = {"base": self.about.base, "revision": self.about.revision, "seed": self.seed}
        settings = player.sampler.settings.model_dump(include={"window_sec", "overlap_sec"})
        made_by = {**about, "begins_at_sec": round(player.second, 3), **settings, "precision": player.sampler.label}
        name = f"live-{slug(self.controls.first[0].text, 40)}-s{self.seed}"
        made_by |= asdict(self.controls)
        self._recording = Recording(self.folder, name, codec.sample_rate_hz, codec.channels, made_by)

    def _finish_recording(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            path = recording.finish()
            self.recordings[path.name] = path
            told = {"file": str(path), "name": path.name, "seconds": round(recording.seconds, 2)}
            self._emit({"type": "recorded", **told})

    def _give_back(self) -> None:
        """Nobody listens any more: the music stops, and the model's memory is free."""
        with self._changed:
            self.playing = self._wants_recording = False
            self._idle_since = None
            player, self._player = self._player, None
            self._sampler = self._states = None
            self.run += 1
            self._new_clock()
            self._tell_everybody()
        try:
            self._finish_recording()
        finally:
            if player is not None:
                player.close()
            del player
            let_go()

    def _fail(self, error: Exception) -> None:
        """The music stops, everybody is told why, and the next `start` begins a piece anew."""
        if not isinstance(error, UserError):
            traceback.print_exception(error, file=sys.stderr)
        with self._changed:
            self.playing = self._wants_recording = self._wants_restart = False
            player, self._player = self._player, None
            recording, self._recording = self._recording, None
            self.run += 1
            self._new_clock()
            self._tell_everybody()
        self._emit(error_message(error))
        if player is not None:
            player.close()
        if recording is not None:
            try:
                self._recording = recording
                self._finish_recording()
            except UserError as second:
                self._emit(error_message(second))


def error_message(error: Exception) -> dict[str, Any]:
    """What went wrong, as a message."""
    if isinstance(error, UserError):
        return {"type": "error", "what": error.what, "where": error.where, "fix": error.fix}
    what = f"a fault of the program: {type(error).__name__}: {error}"
    return {"type": "error", "what": what, "where": "", "fix": "Its traceback is in the terminal: please report it."}
