"""From any channel layout to the one or two channels a consumer wants, in plain numpy.

Mono → stereo is a copy to both sides at unit gain. Surround is folded down with the coefficients of ITU-R BS.775
(centre and surrounds at −3 dB, LFE left out). Stereo → mono is the mean (gain 1/2 each). Two things cannot be known
from the layout alone, so `measure` finds them once for a file and a `FoldDown` keeps them:

* how loud the fold may be: the coefficients' sum would clip a full mix, and scaling by that sum would make music that
  uses few of the channels far too quiet (a centre alone by 10.7 dB);
* whether the two sides cancel out: with one of them inverted, the mean is silence.

What it does not do: cancellation in a part of the spectrum only (a bass in opposite phase) is left as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

_MINUS_3_DB = 0.5**0.5
_LEFT = {
    "FL": 1.0,
    "DL": 1.0,
    "FLC": 1.0,
    "SL": _MINUS_3_DB,
    "BL": _MINUS_3_DB,
    "WL": _MINUS_3_DB,
    "TFL": _MINUS_3_DB,
    "TBL": 0.5,
}
_BOTH = {"FC": _MINUS_3_DB, "BC": 0.5, "TC": 0.5, "TFC": 0.5, "TBC": 0.5}
_SILENT = {"LFE", "LFE2"}


@dataclass(frozen=True)
class FoldDown:
    """How one file is brought to fewer channels than it has."""

    gain: float = 1.0
    """What the stereo fold of more than two channels is multiplied by."""
    mono: Literal["mean", "left", "right"] = "mean"
    """What one channel is made of."""

    @property
    def is_plain(self) -> bool:
        """Whether it is what any file would get."""
        return self == FoldDown()


def to_stereo(names: Sequence[str]) -> Float[np.ndarray, "2 inputs"]:
    """The gains of ITU-R BS.775 from each input channel (FFmpeg's short names: FL, FR, FC, LFE, …) to left and right.

    A layout whose channels have no known place (six channels named nothing) is averaged, evenly on each side.
    """
    if len(names) == 1:
        return np.ones((2, 1), np.float32)
    left = np.array([_LEFT.get(name, _BOTH.get(name, 0.0)) for name in names])
    right = np.array([_LEFT.get(_mirrored(name), _BOTH.get(name, 0.0)) for name in names])
    unplaced = any(not a and not b and name not in _SILENT for a, b, name in zip(left, right, names, strict=True))
    if unplaced or not left.any() or not right.any():
        left = right = np.full(len(names), 1 / len(names))
    return np.stack([left, right]).astype(np.float32)


def mixing_matrix(
    names: Sequence[str], channels: int, fold: FoldDown | None = None
) -> Float[np.ndarray, "channels inputs"]:
    """The gains from each input channel to one or two output channels.

    Without a `fold`, the gains of each side sum to one: what did not clip before cannot clip after.

    Raises:
        ValueError: for more than two outputs, which no consumer here has.
    """
    if channels not in (1, 2):
        raise ValueError(f"can mix down to 1 or 2 channels, not {channels}")
    both = to_stereo(names)
    if fold is None:
        both = both / both.sum(axis=1, keepdims=True)
    elif len(names) > 2:
        both = both * np.float32(fold.gain)
    if channels == 2:
        return both
    side = {"mean": None, "left": 0, "right": 1}[fold.mono if fold else "mean"]
    return both.mean(axis=0, keepdims=True) if side is None else both[side : side + 1]


def fold_down(
    audio: Float[np.ndarray, "C N"], names: Sequence[str], channels: int | None, fold: FoldDown | None = None
) -> Float[np.ndarray, "D N"]:
    """The audio with the wanted number of channels; None or the same number (up to stereo) leaves it as it is."""
    if channels is None or len(audio) == channels:
        return audio
    return mixing_matrix(names, channels, fold) @ audio


def _mirrored(name: str) -> str:
    """The left-hand twin of a right-hand channel: FR → FL, FRC → FLC, TFR → TFL; anything else is no one's twin."""
    return name.replace("R", "L") if "R" in name else ""
