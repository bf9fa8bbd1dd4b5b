"""The person's own music, cut into windows as long as a generation, and through the codec like one.

Only the codes of a prepared dataset are read: what the codec does to sound then stands on both sides of every
distance, and the songs need not be there any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from data_prep.prepared import ClipRow, PreparedDataset

if TYPE_CHECKING:
    from data_prep.codec.port import Codec

MAX_WINDOWS = 64
FEW = 8
"""With fewer held-out windows than this, training clips stand in beside them: no distance to three windows is one."""


@dataclass(frozen=True)
class Window:
    """A stretch of a clip."""

    clip: ClipRow
    start_frame: int
    codes: Int[np.ndarray, "K T"]

    @property
    def caption(self) -> str:
        """What the clip's first caption says."""
        return self.clip.captions[0] if self.clip.captions else ""

    def start_sec(self, frame_rate: float) -> float:
        """Where in the song it begins."""
        return self.clip.start_sec + self.start_frame / frame_rate


def windows(dataset: PreparedDataset, split: str, n_frames: int, at_most: int = MAX_WINDOWS) -> list[Window]:
    """Windows of `n_frames` that do not overlap, evenly over the split; shorter clips give none."""
    found = [
        Window(row, start, np.ascontiguousarray(dataset.codes(row.id)[:, start : start + n_frames]))
        for row in dataset.clips(split)
        for start in range(0, row.n_frames - n_frames + 1, n_frames)
    ]
    return evenly(found, at_most)


def evenly(rows: Sequence, at_most: int) -> list:
    """So many of them, evenly over all."""
    if len(rows) <= at_most:
        return list(rows)
    return [rows[len(rows) * number // at_most] for number in range(at_most)]


@dataclass(frozen=True)
class Reference:
    """What generations are compared with. `held_out` says whether no window of it was trained on."""

    windows: list[Window]
    held_out: bool

    @property
    def tracks(self) -> list[str]:
        """The song of each window."""
        return [window.clip.source for window in self.windows]

    def audio(self, codec: "Codec") -> list[Float[np.ndarray, "C _"]]:
        """The sound of each window, decoded."""
        return [codec.decode(window.codes).numpy() for window in self.windows]


def reference_of(dataset: PreparedDataset, n_frames: int) -> Reference:
    """Held-out windows; with training windows beside them where there are too few."""
    held = windows(dataset, "validation", n_frames)
    if len(held) >= FEW:
        return Reference(held, True)
    return Reference([*held, *windows(dataset, "train", n_frames, MAX_WINDOWS - len(held))], False)
