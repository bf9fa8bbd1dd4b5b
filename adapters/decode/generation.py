"""Pieces of any length from a model with a window: overlapping windows, several pieces at once, changing settings.

As audiocraft extends music: a window is generated to its end, its last `overlap` frames become the known beginning of
the next one, which the model reads again from its first position. Random numbers follow the piece's frames and not the
window's, so a piece does not depend on what else is in the batch.

A piece of `ENDLESS` frames goes on until nobody asks for more, in constant memory: of its codes, about two windows are
kept.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from adapters.conditions import RowConditions, batch_conditions
from adapters.decode.engine import Blend, Engine, Steps
from adapters.decode.frame_values import FrameValues
from adapters.decode.prompt_mix import PromptMix
from adapters.decode.prompt_schedule import PromptSchedule
from adapters.decode.sampling import Knobs, Sampling
from adapters.decode.tape import OPEN, Layout, Tape
from configs.errors import UserError
from data_prep.lm_spec import TEXT

CHANGE_SEC = 0.2
"""How often prompt schedules and strengths are looked at."""

MixTexts = Callable[[Sequence[Tensor], Sequence[float]], Tensor | None]
"""One text of several by their shares, for a base whose texts can be mixed before the model hears them; None: not
these."""

ENDLESS = 2**31 - 1
"""The number of frames of a piece without an end: more than a year of music."""


@dataclass(frozen=True)
class Request:
    """One piece to generate. `n_frames` counts the known beginning too; text states are [L, D_text]."""

    prompts: PromptSchedule[Tensor] | PromptMix[Tensor]
    n_frames: int
    seed: int = 0
    known: Int[Tensor, "K P"] | None = None
    also: RowConditions = field(default_factory=dict)
    """Conditions besides text, for the whole piece; those per frame are cut to each window, and in an endless piece
    begin again at their end."""


@dataclass(frozen=True)
class WindowPlan:
    """How windows follow one another, in frames."""

    window: int
    overlap: int
    frame_rate: float

    def __post_init__(self) -> None:
        if not 0 < self.overlap < self.window:
            raise ValueError(f"overlap {self.overlap} must lie between 0 and the window {self.window}")


@dataclass(eq=False)
class _Row:
    """Where one piece stands."""

    request: Request
    origin: int
    """The piece's frame at which its window begins."""
    codes: Tensor
    """[K, frames from `first` on]; `OPEN` where nothing was generated yet."""
    known: int
    """Frames that were given, or that earlier windows have generated."""
    first: int = 0
    """The piece's first frame that is kept: above 0 only in an endless piece."""
    changed: dict[str, "FrameValues"] = field(default_factory=dict)
    """Conditions per frame that were set while it played; they count instead of the request's."""

    def end(self, plan: WindowPlan) -> int:
        """The piece's frame at which its window ends."""
        return min(self.request.n_frames, self.origin + plan.window)

    def between(self, start: int, stop: int) -> Tensor:
        """Codes [K, stop - start] of these frames of the piece, to be read or written.

        Raises:
            ValueError: they are no longer kept.
        """
        if start < self.first:
            raise ValueError(f"frame {start} of an endless piece is gone: it begins at {self.first} now")
        return self.codes[:, start - self.first : stop - self.first]

    def drop_past(self, plan: WindowPlan) -> None:
        """In an endless piece: keep one window before the one that begins now, and make room for that."""
        if self.request.n_frames < ENDLESS:
            return
        first = max(self.first, self.origin - plan.window)
        kept = self.between(first, self.first + self.codes.shape[1])
        codes = kept.new_full((len(kept), self.end(plan) - first), OPEN)
        codes[:, : kept.shape[1]] = kept[:, : codes.shape[1]]
        self.codes, self.first = codes, first


@dataclass
class Generation:
    """Pieces being generated. `direct(second)` is called every `CHANGE_SEC` and may set strengths: True if it did."""

    engine: Engine[Any]
    requests: Sequence[Request]
    sampling: Sampling
    plan: WindowPlan
    direct: Callable[[float], bool] = lambda second: False
    mix: MixTexts | None = None
    """Without it, or where it gives None, the engine mixes what it makes of each text."""

    def __post_init__(self) -> None:
        spec = self.engine.spec
        self._check_scales(self.sampling)
        self.knobs = Knobs(self.sampling, spec.n_codebooks, spec.card, self.engine.device)
        self.change_frames = max(1, round(CHANGE_SEC * self.plan.frame_rate))
        self.rows = [self._row(request) for request in self.requests]
        self.all_rows = list(self.rows)
        self._encoded: dict[int, Any] = {}
        self._mixed: tuple[list[list[float]], Any] | None = None
        self.tape: Tape | None = None
        self.steps: Steps[Any] | None = None
        self.generated = 0

    @property
    def done(self) -> bool:
        """Whether every piece is whole."""
        return not self.rows

    def frames_ready(self, number: int) -> int:
        """How many frames of a piece are known."""
        row = self.all_rows[number]
        if row not in self.rows:
            return row.request.n_frames
        return max(row.known, min(row.origin + self._frames_known, row.end(self.plan)))

    def codes(self) -> list[Int[Tensor, "K _"]]:
        """The pieces' codes, on the device; after `done` all of them are known. Of an endless piece: what is kept.

        Raises:
            UserError: the model's output is not a number; see `Tape.check`.
        """
        if self.tape is not None and self.steps is not None:
            self.tape.check(self.steps.at)
        with self.engine.quietly():  # where an endless piece's codes were made
            self._collect()
        return [row.codes for row in self.all_rows]

    def frames(self, number: int, start: int, stop: int) -> Int[Tensor, "K _"]:
        """As `codes`, of one piece and these frames only.

        Raises:
            UserError: the model's output is not a number; see `Tape.check`.
            ValueError: frames of an endless piece that lie more than a window back.
        """
        self.codes()
        return self.all_rows[number].between(start, stop)

    def advance(self, n_frames: int) -> None:
        """Go on by about so many frames: up to the next change behind them, or the end of the window."""
        target = self.generated + n_frames
        with self.engine.quietly():
            while not self.done and self.generated < target:
                self._follow()
                self._advance(min(self.change_frames, target - self.generated))

    def set_sampling(self, sampling: Sampling) -> None:
        """Other settings from here on.

        Raises:
            UserError: a scale for a context that the model does not follow.
        """
        self._check_scales(sampling)
        self.sampling = sampling
        self.knobs.turn(sampling)
        with self.engine.quietly():
            if self.steps is not None:
                self.steps.sampling_changed()

    def set_prompts(self, prompts: Sequence[PromptSchedule[Tensor] | PromptMix[Tensor]]) -> None:
        """Other texts for the pieces from here on: over time, or several at once with weights."""
        for row, schedule in zip(self.all_rows, prompts, strict=True):
            row.request = replace(row.request, prompts=schedule)
        self._forget()

    def set_conditions(self, number: int, values: Mapping[str, Tensor]) -> None:
        """Other conditions of a piece from its next frame on, by kind: values [n, width], the last of which stays.

        Raises:
            ValueError: the model has no such kind, or its values do not belong to the frames one by one.
        """
        row = self.all_rows[number]
        now = row.known if self.tape is None else row.origin + self._frames_behind
        for name, new in values.items():
            self._check_per_frame(name)
            held = row.changed.get(name)
            if held is None and name in row.request.also:
                held = FrameValues(0, row.request.also[name])
            row.changed[name] = FrameValues(now, new) if held is None else held.followed_by(new, now, row.origin)
        self._forget()

    def _check_scales(self, sampling: Sampling) -> None:
        if sampling.context_guidance is not None and not self.engine.spec.follows_frames:
            raise UserError(
                "context_guidance is for an adapter that follows a context track, a melody or beats: nothing here does",
                fix="leave --context_guidance out: --guidance counts for everything",
            )

    def _check_per_frame(self, name: str) -> None:
        spec = self.engine.spec
        kind = spec.condition(name) if spec.has(name) else None
        if kind is None or kind.per != "frame" or kind.enters != "frames" or kind.rate_hz != self.plan.frame_rate:
            raise ValueError(f"{name!r} cannot change while it plays")

    @property
    def _frames_known(self) -> int:
        """Of the window."""
        return 0 if self.tape is None or self.steps is None else self.tape.frames_known(self.steps.at)

    def _row(self, request: Request) -> _Row:
        known = 0 if request.known is None else request.known.shape[1]
        held = request.n_frames if request.n_frames < ENDLESS else known + self.plan.window
        codes = torch.full((self.engine.spec.n_codebooks, held), OPEN, device=self.engine.device)
        if request.known is not None:
            codes[:, :known] = request.known[:, : request.n_frames].to(codes)
        # A beginning that fills a window is read from its last `overlap` frames only.
        origin = 0 if known < self.plan.window else known - self.plan.overlap
        return _Row(request, origin, codes, min(known, request.n_frames))

    def _follow(self) -> None:
        """Strengths and prompts as they are at this moment."""
        if self.tape is None or self.steps is None:
            self.tape = self._tape()
            self.steps = self.engine.start(self.tape, self.knobs)
        if self.direct(self._second(self.rows[0])):
            self._forget()
        self.steps.follow(self._blend())

    def _second(self, row: _Row) -> float:
        assert self.tape is not None
        return (row.origin + self._frames_behind) / self.plan.frame_rate

    @property
    def _frames_behind(self) -> int:
        """Of the window, what is known or will be once its beginning is read: nothing of it is generated again."""
        assert self.tape is not None
        return max(self._frames_known, self.tape.frames_given)

    def _advance(self, n_frames: int) -> None:
        assert self.tape is not None and self.steps is not None
        before = self._frames_behind
        self.steps.advance(self.tape.columns_for(before + n_frames))
        known = self._frames_known
        self.generated += known - before
        finished = [row for row in self.rows if known >= row.end(self.plan) - row.origin]
        if len(finished) == len(self.rows):
            self._next_window()
        elif finished:
            self._drop(finished)

    def _drop(self, finished: list[_Row]) -> None:
        """Rows that are whole leave; those that only wait for the next window stay."""
        leaving = [row for row in finished if row.end(self.plan) == row.request.n_frames]
        if leaving:
            self._collect()
            self._keep([place for place, row in enumerate(self.rows) if row not in leaving])

    def _next_window(self) -> None:
        assert self.tape is not None and self.steps is not None
        self._collect()
        self.tape.check(self.steps.at)
        staying = [place for place, row in enumerate(self.rows) if row.end(self.plan) < row.request.n_frames]
        if len(staying) < len(self.rows):
            self._keep(staying)
        for row in self.rows:
            row.known = row.end(self.plan)
            row.origin += self.plan.window - self.plan.overlap
            row.drop_past(self.plan)
        if self.rows:
            if any(row.request.also or row.changed for row in self.rows):
                self._forget()  # conditions per frame are cut to the window
            self.tape.lay_out(self._layout())
            self.steps.restart()

    def _keep(self, places: Sequence[int]) -> None:
        """Go on with the rows at these places."""
        self._forget()
        self.rows = [self.rows[place] for place in places]
        if places and self.tape is not None and self.steps is not None:
            self.tape.keep(places)
            self.steps.keep(places)

    def _tape(self) -> Tape:
        seeds = [row.request.seed for row in self.rows]
        engine = self.engine
        return Tape(engine.pattern, engine.spec.special, self.knobs, seeds, self._layout(), engine.device)

    def _layout(self) -> Layout:
        known = [row.between(row.origin, min(row.known, row.end(self.plan))) for row in self.rows]
        lengths = [row.end(self.plan) - row.origin for row in self.rows]
        return Layout(known, lengths, [row.origin for row in self.rows])

    def _collect(self) -> None:
        if self.tape is None or not self.rows:
            return
        for row, codes in zip(self.rows, self.tape.codes(), strict=True):
            n_frames = min(self._frames_known, row.end(self.plan) - row.origin)
            row.between(row.origin, row.origin + n_frames)[:] = codes[:, :n_frames]

    def _blend(self) -> Blend[Any]:
        """What the rows follow now: the texts that have any share, mixed where there are several."""
        shares = [row.request.prompts.shares(self._second(row)) for row in self.rows]
        longest = max(len(share) for share in shares)
        shares = [share + [0.0] * (longest - len(share)) for share in shares]
        mixed = self._mixed_texts(shares)
        if mixed is not None:
            return Blend([mixed])
        present = [number for number in range(longest) if any(share[number] > 0 for share in shares)]
        parts = [self._part(number) for number in present]
        if len(parts) == 1:
            return Blend(parts)
        return Blend(parts, torch.tensor([[share[number] for share in shares] for number in present])[..., None])

    def _part(self, number: int) -> Any:
        """Everyone's text of this number (its last, where it has fewer), with what else it follows, encoded."""
        if number not in self._encoded:
            self._encoded[number] = self._encode([_text_of(row, number) for row in self.rows])
        return self._encoded[number]

    def _mixed_texts(self, shares: list[list[float]]) -> Any:
        """Everyone's texts as one by these shares, encoded; None where they are not mixed beforehand."""
        if self.mix is None or all(max(share) >= 1 for share in shares):
            return None
        if self._mixed is None or self._mixed[0] != shares:
            mixed = [self._mixed_text(row, share) for row, share in zip(self.rows, shares, strict=True)]
            texts = [text for text in mixed if text is not None]
            self._mixed = shares, self._encode(texts) if len(texts) == len(mixed) else None
        return self._mixed[1]

    def _mixed_text(self, row: _Row, share: Sequence[float]) -> Tensor | None:
        assert self.mix is not None
        present = [number for number, weight in enumerate(share) if weight > 0]
        texts, weights = [_text_of(row, number) for number in present], [share[number] for number in present]
        return texts[0] if len(texts) == 1 else self.mix(texts, weights)

    def _forget(self) -> None:
        """What was encoded holds no longer."""
        self._encoded.clear()
        self._mixed = None

    def _encode(self, texts: Sequence[Tensor]) -> Any:
        rows = [self._conditions(row, text) for row, text in zip(self.rows, texts, strict=True)]
        return self.engine.encode(batch_conditions(rows, self.engine.spec))

    def _conditions(self, row: _Row, text: Tensor) -> RowConditions:
        found = {TEXT: text}
        for name, values in row.request.also.items():
            kind = self.engine.spec.condition(name)
            if kind.per == "frame":
                # A prefix may look ahead of the piece's end: the model has read whole windows of it in training.
                n_frames = self.plan.window if kind.enters == "prefix" else row.end(self.plan) - row.origin
                stretch = kind.stretch(row.origin, n_frames, self.plan.frame_rate)
                endless = row.request.n_frames >= ENDLESS
                values = values[torch.arange(stretch.start, stretch.stop) % len(values)] if endless else values[stretch]
            found[name] = values
        return found | {name: held.between(row.origin, row.end(self.plan)) for name, held in row.changed.items()}


def _text_of(row: _Row, number: int) -> Tensor:
    """A row's text of this number; its last, where it has fewer."""
    texts = row.request.prompts.texts
    return texts[min(number, len(texts) - 1)]
