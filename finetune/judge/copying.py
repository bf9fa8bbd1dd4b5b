"""Does the adapter give back the songs it was trained on?

Three questions, each put to held-out music and to the base as well, which cannot have memorised anything:

* runs: how long is the longest passage, code for code, that a generation shares with a training clip? All codebooks at
  once, which happens by chance for a few frames only; and the first codebook, exactly and within some edits, where what
  held-out clips of the same length share with it is the measure.
* completion: the first seconds of a training clip are given; how much of the rest comes back? (Carlini et al. 2023,
  "Quantifying Memorization Across Neural Language Models", arXiv:2202.07646, ask this of text.)
* gap: how much better are training clips predicted than held-out ones, beyond what the base makes of the two sets?

Codes stand for sound here. A melody that is played again on another instrument shares no codes: it is not found.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from adapters.sampler import Sampler
from finetune.judge.intervals import Estimate, difference_estimate, mean_estimate
from finetune.judge.play import Piece
from finetune.judge.reference import Window
from finetune.judge.shared_runs import all_codebooks, exact, first_codebook, within_edits, without_repeats

EDITS = 4
NEAREST = 5
"""Training clips, by their exact run, in which a run within edits is looked for."""
COPIED_SEC = 1.0
"""A passage of at least this, alike in all codebooks, is a copy: by chance a frame or two are alike."""
CHANCE_FACTOR = 3.0
"""And it must be this many times as long as anything that held-out clips or the base's pieces share."""
GIVEN_SEC, BACK_SEC = 3.0, 3.0
RETURNED = 0.10
"""Training clips come back by this share of frames more than held-out ones do: memorised."""
GAP_NATS, OVERFITTED_SHARE = 0.35, 0.5
"""The gap of losses, beyond the base's, from which on an adapter counts as overfitted: so much, and so large a share of
what training songs gained."""


@dataclass(frozen=True)
class Song:
    """A clip's codes as one number a frame, and where they are from."""

    source: str
    start_sec: float
    first: Int[np.ndarray, " A"]
    every: Int[np.ndarray, " B"]


@dataclass(frozen=True)
class Shared:
    """What one generation shares with a set of songs, in frames that bring something new."""

    all_codebooks: int
    source: str
    """The song with the longest such run."""
    start_sec: float
    first_exact: float
    first_edits: float
    """The first codebook's runs, averaged over songs: what one song shares with it."""


@dataclass(frozen=True)
class Runs:
    """Runs that pieces share: the adapter's with training and with held-out songs, the base's with training songs."""

    with_training: list[Shared]
    with_held_out: list[Shared]
    of_base: list[Shared]
    frame_rate: float

    @property
    def longest_sec(self) -> float:
        """The longest passage that any generation shares with a training song, in all codebooks."""
        return self._longest(self.with_training) / self.frame_rate

    @property
    def chance_sec(self) -> float:
        """The longest one that cannot be a copy: shared with held-out songs, or by the base."""
        return self._longest([*self.with_held_out, *self.of_base]) / self.frame_rate

    @property
    def copies(self) -> list[int]:
        """Which generations hold a copied passage."""
        least = max(COPIED_SEC, CHANCE_FACTOR * self.chance_sec) * self.frame_rate
        return [number for number, one in enumerate(self.with_training) if one.all_codebooks >= least]

    def excess_sec(self, edits: bool = False) -> Estimate:
        """How much longer first-codebook runs with a training song are than with a held-out one, per generation."""
        name = "first_edits" if edits else "first_exact"
        pairs = zip(self.with_training, self.with_held_out, strict=True)
        return mean_estimate([(getattr(a, name) - getattr(b, name)) / self.frame_rate for a, b in pairs])

    @staticmethod
    def _longest(shared: Sequence[Shared]) -> int:
        return max((one.all_codebooks for one in shared), default=0)


def song_of(window: Window, frame_rate: float, channels: int) -> Song:
    """A window made ready to compare."""
    return Song(window.clip.source, window.start_sec(frame_rate), *_frames(window.codes, channels))


def shared_with(piece: Int[np.ndarray, "K T"], songs: Sequence[Song], channels: int) -> Shared:
    """Compare one generation with every song."""
    first, every = _frames(piece, channels)
    runs = [exact(every, song.every) for song in songs]
    firsts = [exact(first, song.first) for song in songs]
    best = int(np.argmax(runs))
    nearest = sorted(range(len(songs)), key=lambda number: -firsts[number])[:NEAREST]
    edits = [within_edits(first, songs[number].first, EDITS) for number in nearest]
    return Shared(runs[best], songs[best].source, songs[best].start_sec, float(np.mean(firsts)), float(np.mean(edits)))


def runs_of(
    adapted: Sequence[Piece],
    base: Sequence[Piece],
    training: Sequence[Window],
    held_out: Sequence[Window],
    *,
    frame_rate: float,
    channels: int,
) -> Runs:
    """Compare all generations. Windows are of one length, so that a song is a song on either side."""
    learnt, kept = ([song_of(w, frame_rate, channels) for w in these] for these in (training, held_out))
    return Runs(
        [shared_with(piece.codes, learnt, channels) for piece in adapted],
        [shared_with(piece.codes, kept, channels) for piece in adapted] if kept else [],
        [shared_with(piece.codes, learnt, channels) for piece in base],
        frame_rate,
    )


def completed(player: Sampler, chosen: Sequence[Window], frame_rate: float) -> list[float]:
    """Give the first three seconds of each window; the share of the next three that comes back, frame by frame.

    The likeliest code is taken each time, without guidance: what is known by heart comes back then, while drawing by
    chance leaves the song at the first unlikely code and never finds back. Frames count where the window's own first
    codebook moves on: a held note comes back by itself.
    """
    given, back = round(GIVEN_SEC * frame_rate), round(BACK_SEC * frame_rate)
    usual, shares = player.settings, []
    player.settings = usual.model_copy(update={"guidance": 1.0, "temperature": 0.0})
    try:
        for window in chosen:
            codes = np.ascontiguousarray(window.codes[:, :given])
            (played,) = player.codes([window.caption], seeds=[0], continue_from=codes, n_frames=back)
            shares.append(returned(played[0, given:], window.codes[0, given - 1 : given + back]))
    finally:
        player.settings = usual
    return shares


def returned(played: Int[np.ndarray, " n"], truth: Int[np.ndarray, " m"]) -> float:
    """Of the frames of `truth` that differ from the one before, the share that was played; the first is context."""
    moves = truth[1:] != truth[:-1]
    n = min(len(played), len(moves))
    same = (played[:n] == truth[1 : n + 1])[moves[:n]]
    return float(same.mean()) if len(same) else 0.0


def completion_frames(frame_rate: float) -> int:
    """How long a window must be that a completion can be asked of."""
    return round(GIVEN_SEC * frame_rate) + round(BACK_SEC * frame_rate)


@dataclass(frozen=True)
class Completion:
    """Shares that came back: of training and of held-out windows, from the adapter and from the base."""

    training: list[float]
    held_out: list[float]
    base_training: list[float]
    base_held_out: list[float]

    @property
    def excess(self) -> Estimate:
        """Training beyond held-out music; beyond the base on the same windows where nothing is held out."""
        if self.held_out:
            return difference_estimate(self.training, self.held_out)
        return mean_estimate(np.subtract(self.training, self.base_training))


@dataclass(frozen=True)
class Losses:
    """Mean loss of each window in nats, with the adapter and with the base, and the windows' songs."""

    training: np.ndarray
    held_out: np.ndarray
    base_training: np.ndarray
    base_held_out: np.ndarray
    training_tracks: list[str]
    held_out_tracks: list[str]

    @property
    def gap(self) -> Estimate:
        """(held out - training) with the adapter, minus the same with the base: learnt of the training songs alone."""
        return difference_estimate(
            self.base_training - self.training,
            self.base_held_out - self.held_out,
            left_groups=self.training_tracks,
            right_groups=self.held_out_tracks,
        )

    @property
    def gained(self) -> Estimate:
        """How much better held-out music is predicted than by the base."""
        return mean_estimate(self.base_held_out - self.held_out, groups=self.held_out_tracks)

    @property
    def is_overfitted(self) -> bool:
        """Whether most of what was learnt of the training songs is of no use for others."""
        learnt = float(np.mean(self.base_training - self.training))
        return self.gap.low > GAP_NATS and self.gap.value > OVERFITTED_SHARE * learnt


def _frames(codes: Int[np.ndarray, "K T"], channels: int) -> tuple[np.ndarray, np.ndarray]:
    return without_repeats(first_codebook(codes, channels)), without_repeats(all_codebooks(codes))
