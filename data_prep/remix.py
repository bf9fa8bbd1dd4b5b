"""From any channel layout to the channels a consumer wants, in plain numpy.

Stereo → mono is the mean (gain 1/2 each), mono → stereo is a copy to both sides at unit gain. Surround is folded down
with the coefficients of ITU-R BS.775 (centre and surrounds at −3 dB, LFE left out), scaled so that the gains of each
side sum to one: what did not clip before cannot clip after.
"""

from collections.abc import Sequence

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


def mixing_matrix(names: Sequence[str], channels: int) -> Float[np.ndarray, "channels inputs"]:
    """The gains from each input channel (FFmpeg's short names: FL, FR, FC, LFE, …) to one or two output channels.

    A layout whose channels have no known place (six channels named nothing) is averaged, evenly on each side.

    Raises:
        ValueError: for more than two outputs, which no consumer here has.
    """
    if channels not in (1, 2):
        raise ValueError(f"can mix down to 1 or 2 channels, not {channels}")
    if len(names) == 1:
        return np.ones((channels, 1), np.float32)
    left = np.array([_LEFT.get(name, _BOTH.get(name, 0.0)) for name in names])
    right = np.array([_LEFT.get(_mirrored(name), _BOTH.get(name, 0.0)) for name in names])
    unplaced = any(not a and not b and name not in _SILENT for a, b, name in zip(left, right, names, strict=True))
    if unplaced or not left.any() or not right.any():
        left = right = np.ones(len(names))
    both = np.stack([left / left.sum(), right / right.sum()])
    return (both if channels == 2 else both.mean(axis=0, keepdims=True)).astype(np.float32)


def remix(audio: Float[np.ndarray, "C N"], names: Sequence[str], channels: int | None) -> Float[np.ndarray, "D N"]:
    """The audio with the wanted number of channels; None or the same number (up to stereo) leaves it as it is."""
    if channels is None or len(audio) == channels:
        return audio
    return mixing_matrix(names, channels) @ audio


def _mirrored(name: str) -> str:
    """The left-hand twin of a right-hand channel: FR → FL, FRC → FLC, TFR → TFL; anything else is no one's twin."""
    return name.replace("R", "L") if "R" in name else ""
