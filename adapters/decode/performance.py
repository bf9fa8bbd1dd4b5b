"""Pieces of any length from a model with a window: overlapping windows, several pieces at once, settings that may turn.

As audiocraft extends music: a window is played to its end, its last `overlap` frames become the known beginning of the
next one, which the model hears again from position 0. Random numbers follow the piece's frames and not the window's, so
a piece does not depend on what else is in the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from adapters.decode.conditions import CrossPart, Hearing, hear_part
from adapters.decode.sampling import Knobs, Sampling
from adapters.decode.story import Story
from adapters.decode.weights import DecoderWeights
from adapters.decode.window import OPEN, Score, Window

TURN_FRAMES = 10
"""How often stories and strengths are looked at: a fifth of a second at 50 frames."""


@dataclass(frozen=True)
class Piece:
    """One piece to play. `n_frames` counts the prompt too; text states are [L, D_text]."""

    story: Story[Tensor]
    n_frames: int
    seed: int = 0
    prompt: Int[Tensor, "K P"] | None = None


@dataclass(frozen=True)
class Frame:
    """How windows follow one another, in frames."""

    window: int = 1500
    overlap: int = 600
    rate: float = 50.0
    """Frames per second."""

    def __post_init__(self) -> None:
        if not 0 < self.overlap < self.window:
            raise ValueError(f"overlap {self.overlap} must lie between 0 and the window {self.window}")


@dataclass(eq=False)
class _Row:
    """Where one piece stands."""

    piece: Piece
    origin: int
    """The piece's frame at which its window begins."""
    codes: Tensor
    """[K, n_frames]; `OPEN` where nothing was played yet."""
    known: int
    """Frames that were given as a prompt, or that earlier windows have played."""

    def end(self, frame: Frame) -> int:
        """The piece's frame at which its window ends."""
        return min(self.piece.n_frames, self.origin + frame.window)


@dataclass
class Performance:
    """Pieces in play. `direct(second)` is called every `TURN_FRAMES` and may turn adapters: True if it did."""

    weights: DecoderWeights
    pieces: Sequence[Piece]
    sampling: Sampling
    frame: Frame = field(default_factory=Frame)
    direct: Callable[[float], bool] = lambda second: False

    def __post_init__(self) -> None:
        shape = self.weights.shape
        self.knobs = Knobs(self.sampling, shape.n_codebooks, shape.card, self.weights.device)
        self.rows = [self._row(piece) for piece in self.pieces]
        self.all_rows = list(self.rows)
        self._parts: dict[int, CrossPart] = {}
        self.window: Window | None = None
        self.played = 0

    @property
    def done(self) -> bool:
        """Whether every piece is whole."""
        return not self.rows

    def frames_ready(self, number: int) -> int:
        """How many frames of a piece are known."""
        row = self.all_rows[number]
        if row not in self.rows:
            return row.piece.n_frames
        ready = 0 if self.window is None else self.window.frames_ready
        return max(row.known, min(row.origin + ready, row.end(self.frame)))

    def codes(self) -> list[Int[Tensor, "K _"]]:
        """The pieces' codes, on the device; after `done` all of them are known.

        Raises:
            UserError: the model's output is not a number; see `Window.check`.
        """
        if self.window is not None:
            self.window.check()
        self._collect()
        return [row.codes for row in self.all_rows]

    def play(self, n_frames: int) -> None:
        """Play on by about so many frames: up to the next turn behind them, or the end of the window."""
        target = self.played + n_frames
        with self.weights.quietly():
            while not self.done and self.played < target:
                self._turn()
                self._play_some(min(TURN_FRAMES, target - self.played))

    def turn(self, sampling: Sampling) -> None:
        """Take over other settings from here on."""
        self.sampling = sampling
        self.knobs.turn(sampling)
        with self.weights.quietly():
            if self.window is not None:
                self.window.turn()

    def retell(self, stories: Sequence[Story[Tensor]]) -> None:
        """Other texts for the pieces from here on."""
        for row, story in zip(self.all_rows, stories, strict=True):
            row.piece = Piece(story, row.piece.n_frames, row.piece.seed, row.piece.prompt)
        self._parts.clear()

    def _row(self, piece: Piece) -> _Row:
        shape = self.weights.shape
        codes = torch.full((shape.n_codebooks, piece.n_frames), OPEN, device=self.weights.device)
        known = 0 if piece.prompt is None else piece.prompt.shape[1]
        if piece.prompt is not None:
            codes[:, :known] = piece.prompt[:, : piece.n_frames].to(codes)
        # A prompt that fills a window is heard from its last `overlap` frames only.
        origin = 0 if known < self.frame.window else known - self.frame.overlap
        return _Row(piece, origin, codes, min(known, piece.n_frames))

    def _turn(self) -> None:
        if self.window is None:
            self.window = self._open()
        second = self._second(self.rows[0])
        if self.direct(second):
            self._parts.clear()
        self.window.hear_now(self._hearing())

    def _second(self, row: _Row) -> float:
        assert self.window is not None
        return (row.origin + max(self.window.frames_ready, self.window.n_known - 1)) / self.frame.rate

    def _play_some(self, n_frames: int) -> None:
        window = self.window
        assert window is not None
        before = window.frames_ready
        window.play(before + n_frames + self.weights.shape.lag)
        self.played += window.frames_ready - before
        finished = [row for row in self.rows if window.frames_ready >= row.end(self.frame) - row.origin]
        if len(finished) == len(self.rows):
            self._next_window()
        elif finished:
            self._drop(finished)

    def _drop(self, finished: list[_Row]) -> None:
        """Rows that are whole leave; those that only wait for the next window stay."""
        leaving = [row for row in finished if row.end(self.frame) == row.piece.n_frames]
        if not leaving or self.window is None:
            return
        self._collect()
        staying = [place for place, row in enumerate(self.rows) if row not in leaving]
        self.rows = [self.rows[place] for place in staying]
        self._parts.clear()
        self.window.keep(staying)

    def _next_window(self) -> None:
        assert self.window is not None
        self._collect()
        self.window.check()
        staying = [place for place, row in enumerate(self.rows) if row.end(self.frame) < row.piece.n_frames]
        if len(staying) < len(self.rows):
            self._parts.clear()
            self.rows = [self.rows[place] for place in staying]
            if staying:
                self.window.keep(staying)
        for row in self.rows:
            row.known = row.end(self.frame)
            row.origin += self.frame.window - self.frame.overlap
        if self.rows:
            self.window.lay_out(self._score())

    def _open(self) -> Window:
        seeds = [row.piece.seed for row in self.rows]
        return Window(self.weights, Hearing([]), self.knobs, seeds, self._score())

    def _score(self) -> Score:
        known = [self._known(row) for row in self.rows]
        lengths = [row.end(self.frame) - row.origin for row in self.rows]
        return Score(known, lengths, [row.origin for row in self.rows])

    def _known(self, row: _Row) -> Tensor:
        return row.codes[:, row.origin : min(row.known, row.end(self.frame))]

    def _collect(self) -> None:
        if self.window is None or not self.rows:
            return
        found = self.window.codes()
        for row, codes in zip(self.rows, found, strict=True):
            n_frames = min(self.window.frames_ready, row.end(self.frame) - row.origin)
            row.codes[:, row.origin : row.origin + n_frames] = codes[:, :n_frames]

    def _hearing(self) -> Hearing:
        """What the rows hear now: the texts that have any share, mixed where there are several."""
        shares = [row.piece.story.shares(self._second(row)) for row in self.rows]
        longest = max(len(share) for share in shares)
        shares = [share + [0.0] * (longest - len(share)) for share in shares]
        heard = [number for number in range(longest) if any(share[number] > 0 for share in shares)]
        parts = [self._part(number) for number in heard]
        if len(parts) == 1:
            return Hearing(parts)
        mix = torch.tensor([[share[number] for share in shares] for number in heard])
        return Hearing(parts, mix.to(self.weights.device, self.weights.dtype)[..., None])

    def _part(self, number: int) -> CrossPart:
        if number not in self._parts:
            texts = [row.piece.story.texts[min(number, len(row.piece.story.texts) - 1)] for row in self.rows]
            self._parts[number] = hear_part(self.weights, texts)
        return self._parts[number]
