"""The thread that owns the model: it makes what is wanted, no further ahead of the ear than asked, and rests otherwise.

Nothing here waits for a listener. A failure ends the music and is told; the thread itself lives until `closing`.
"""

import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from adapters.device_memory import let_go
from adapters.play_along import ContextTrack
from adapters.sampler import Sampler
from configs.errors import UserError
from finetune.live.audience import Audience
from finetune.live.controls import Controls
from finetune.live.error_message import error_message
from finetune.live.pace import GAP_REMEMBERED_SEC, Pace, hint
from finetune.live.play_clock import PlayClock
from finetune.live.player import Player, TextStates
from finetune.live.recorder import Recorder
from finetune.live.wanted import Wanted


class Worker:
    """`load` reads the model: when it is first needed, and again after it was given back.

    `about` stands at the head of every recording; `context` is a recording to play along with.
    """

    def __init__(
        self,
        load: Callable[[], Sampler],
        wanted: Wanted,
        audience: Audience,
        recorder: Recorder,
        *,
        about: dict[str, Any],
        idle_sec: float,
        sampler: Sampler | None = None,
        context: ContextTrack | None = None,
    ) -> None:
        self.wanted, self.audience, self.recorder = wanted, audience, recorder
        self.about, self.idle_sec = about, idle_sec
        self.sampler = sampler
        self.states = None if sampler is None else TextStates(sampler)
        self.player: Player | None = None
        self.clock = PlayClock(wanted.controls.buffer_sec)
        self._load = load
        self._context = context
        self._latency_sec: float | None = None
        self._thread = threading.Thread(target=self._work, name="woodshed-live", daemon=True)
        self._thread.start()

    def pace(self) -> Pace:
        """How it keeps up; from any thread."""
        with self.wanted.changed:
            player, sampler, controls = self.player, self.sampler, self.wanted.controls
            factor = None if player is None else player.real_time_factor
            gap = self.clock.last_gap
            recent = gap is not None and time.monotonic() - gap < GAP_REMEMBERED_SEC
            window_sec = 0.0 if sampler is None else sampler.settings.window_sec
            label = "" if sampler is None else sampler.label
            by_condition = sampler is not None and sampler.engine.spec.has("strengths")
            return Pace(
                self.wanted.playing,
                sampler is not None,
                0.0 if player is None else player.second,
                controls.chunk_sec,
                0.0 if player is None or sampler is None else player.delay_frames / sampler.frame_rate,
                self.clock.level_sec,
                factor,
                self._latency_sec,
                self.clock.gaps,
                self.clock.gap_sec,
                player.moment if player is not None and controls.story and player.moment >= 0 else None,
                hint(factor, recent, controls, label, window_sec, guided_by_condition=by_condition),
            )

    def join(self) -> None:
        """Wait until all is given back; after `closing` was set."""
        self._thread.join()

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            try:
                job()
            except Exception as error:
                self._fail(error)
        self._give_back()

    def _next_job(self) -> Callable[[], None] | None:
        """What is to be done next; waits until there is something. None: the end."""
        wanted = self.wanted
        with wanted.changed:
            while not wanted.closing:
                wait_sec = None
                if self.audience.empty_since is not None and (self.sampler is not None or wanted.playing):
                    wait_sec = self.audience.empty_since + self.idle_sec - time.monotonic()
                    if wait_sec <= 0:
                        return self._give_back
                if wanted.restart:
                    return self._restart
                begun = wanted.playing or self.player is not None or self.recorder.is_on
                if begun and wanted.recording != self.recorder.is_on:
                    return self._switch_recording
                if wanted.playing:
                    ahead = self.clock.level_sec - wanted.controls.buffer_sec
                    if ahead <= 0:
                        return self._play_chunk
                    wait_sec = ahead if wait_sec is None else min(ahead, wait_sec)
                wanted.changed.wait(wait_sec)
            return None

    def _play_chunk(self) -> None:
        player = self._ready()
        chunk = player.next_chunk()
        with self.wanted.changed:
            if chunk.waveform.shape[1]:
                self.clock.push(chunk.waveform.shape[1] / player.rate_hz)
        self.audience.tell(chunk)
        self.audience.tell(self.pace().as_message())
        if not self.recorder.write(chunk):
            self._recording_is_off()

    def _ready(self) -> Player:
        """The piece in play, with the model read and the piece begun where that is to be done."""
        if self.sampler is None:
            self.audience.tell({"type": "loading"})
            sampler = self._load()
            with self.wanted.changed:
                self.sampler, self.states = sampler, TextStates(sampler)
        if self.player is None:
            assert self.states is not None
            wanted = self.wanted
            player = Player(
                self.sampler,
                self.states,
                lambda: wanted.controls,
                seed=wanted.seed,
                run=wanted.run,
                applied=self._was_applied,
                context=self._context,
            )
            with wanted.changed:
                self.player, wanted.asked_at, self._latency_sec = player, None, None
        return self.player

    def _was_applied(self, second: float, controls: Controls) -> None:
        """Called where the piece stands when it takes new controls over: they are heard once the ear is there."""
        player, wanted = self.player, self.wanted
        if player is None:
            return
        with wanted.changed:
            if wanted.asked_at is not None:
                heard_sec = player.second - self.clock.level_sec
                self._latency_sec = max(0.0, time.monotonic() - wanted.asked_at + second - heard_sec)
                wanted.asked_at = None
        self.recorder.note({"second": round(second, 3), **asdict(controls)})

    def _restart(self) -> None:
        with self.wanted.changed:
            self.wanted.restart = False
            player = self._end_piece()
        self.recorder.note({"reset": True, "seed": self.wanted.seed})
        if player is not None:
            player.close()

    def _end_piece(self) -> Player | None:
        """No piece is in play any more, and pages drop what they have of it. Holds the lock; hands the player back."""
        player, self.player = self.player, None
        self.wanted.run += 1
        self.clock = PlayClock(self.wanted.controls.buffer_sec)
        if not self.wanted.playing:
            self.clock.pause()
        self._tell_state()
        return player

    def _tell_state(self) -> None:
        self.wanted.changed.notify_all()
        self.audience.tell(self.wanted.as_message())

    def _switch_recording(self) -> None:
        if self.recorder.is_on:
            self.recorder.finish()
            return
        player, controls = self._ready(), self.wanted.controls
        codec = player.sampler.codec
        assert codec is not None
        settings = player.sampler.settings.model_dump(include={"window_sec", "overlap_sec"})
        made_by = {**self.about, "seed": self.wanted.seed, "begins_at_sec": round(player.second, 3), **settings}
        made_by |= {"precision": player.sampler.label, **asdict(controls)}
        try:
            self.recorder.begin(controls.first[0].text, codec.sample_rate_hz, codec.channels, made_by)
        except UserError as error:
            self.audience.tell(error_message(error))
            self._recording_is_off()

    def _recording_is_off(self) -> None:
        with self.wanted.changed:
            self.wanted.recording = False
            self._tell_state()

    def _give_back(self) -> None:
        """Nobody listens any more: the music stops, and the model's memory is free."""
        with self.wanted.changed:
            self.audience.empty_since = None  # once is enough
            player = self._all_off()
            self.sampler = self.states = None
        self.recorder.finish()
        if player is not None:
            player.close()
        del player
        let_go()

    def _fail(self, error: Exception) -> None:
        """The music stops, everybody is told why, and the next `start` begins a piece anew."""
        if not isinstance(error, UserError):
            traceback.print_exception(error, file=sys.stderr)
        player = self._all_off()
        self.audience.tell(error_message(error))
        if player is not None:
            player.close()
        self.recorder.finish()

    def _all_off(self) -> Player | None:
        with self.wanted.changed:
            self.wanted.playing = self.wanted.recording = self.wanted.restart = False
            return self._end_piece()
