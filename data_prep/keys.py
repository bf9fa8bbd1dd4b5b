"""Pitch classes → a key, for a track and for each of its clips.

Krumhansl and Kessler's probe-tone profiles (Psychological Review 89, 1982), correlated with how much each pitch class
sounds, in all 24 rotations. The confidence is how far the best correlation lies above the second, seldom past 0.3.

A clip alone is a guess from few notes, and neighbouring clips would often be given neighbouring keys. So a track has
one key, from all of its clips, and a clip has another one only on evidence: its own key fits it much better than the
track's does. Drums alone have no key.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

_NAMES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
_MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
_MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
_PROFILES = np.stack([np.roll(profile, tonic) for profile in (_MAJOR, _MINOR) for tonic in range(12)])
KEYS = tuple(f"{name} {mode}" for mode in ("major", "minor") for name in _NAMES)
_AGAINST = 0.2
"""So much better must a clip's own key fit it than the track's, in correlation."""
_FITS = 0.5
"""The least correlation of a key; the chance that random notes reach it is about one in ten for each key."""


def best_key(chroma: Sequence[float]) -> tuple[str | None, float | None]:
    """The key that fits twelve shares of pitch classes best, from C on, and its margin; None where nothing fits."""
    scores = _scores(chroma)
    if scores is None:
        return None, None
    best, second = np.argsort(scores)[::-1][:2]
    if scores[best] < _FITS:
        return None, None
    return KEYS[best], round(float(scores[best] - scores[second]), 3)


def clip_key(chroma: Sequence[float] | None, track: tuple[str | None, float | None]) -> tuple[str | None, float | None]:
    """A clip's key and its margin: those of its track, unless the clip's own key fits much better."""
    scores = _scores(chroma) if chroma else None
    if scores is None:
        return None, None
    own = best_key(chroma or ())
    known = scores[KEYS.index(track[0])] if track[0] else -np.inf
    if track[0] and scores.max() - known < _AGAINST:
        return track
    return own if own[0] and (own[1] or 0.0) >= _AGAINST / 2 else (None, None)


def mean_chroma(chromas: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float] | None:
    """The pitch classes of a track: those of its clips, by their lengths."""
    if not chromas:
        return None
    weights = np.asarray(seconds, np.float64)
    return (np.asarray(chromas, np.float64) * weights[:, None]).sum(axis=0).tolist()


def _scores(chroma: Sequence[float]) -> Float[np.ndarray, "24"] | None:
    values = np.asarray(chroma, np.float64)
    if values.mean() <= 0 or values.std() < 1e-6 * values.mean():
        return None
    return np.array([np.corrcoef(values, profile)[0, 1] for profile in _PROFILES])
