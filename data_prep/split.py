"""Training or validation, by track: all that comes of one recording, and of copies of it, is on one side."""

import hashlib
from collections.abc import Mapping
from math import inf

TRAIN, VALIDATION = "train", "validation"


def split_tracks(seconds: Mapping[str, float], fraction: float, seed: int) -> dict[str, str]:
    """Which split each track belongs to.

    Tracks come in an order that depends on the seed and their own key alone, so that adding a song moves few others.
    Each is taken for validation while that brings the share closer to `fraction`; at least one track is, when there
    are two or more and the fraction is not 0, and never all.

    Args:
        seconds: length of what is used, by a key that names the music (a hash), not the file.
        fraction: share of the seconds to hold out.
        seed: another seed, another choice.
    """
    splits = dict.fromkeys(seconds, TRAIN)
    if fraction == 0 or len(seconds) < 2:
        return splits
    wanted = fraction * sum(seconds.values())
    held = 0.0
    order = sorted(seconds, key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).hexdigest())
    for key in order:
        if abs(held + seconds[key] - wanted) < abs(held - wanted):
            splits[key] = VALIDATION
            held += seconds[key]
    if not held:  # every track is far longer than the share: the shortest is the least too much
        splits[min(order, key=lambda key: seconds.get(key, inf))] = VALIDATION
    if VALIDATION in splits.values() and TRAIN not in splits.values():
        splits[max(order, key=lambda key: seconds[key])] = TRAIN
    return splits
