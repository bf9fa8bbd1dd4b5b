"""Between two adapters along the arc, not the chord: the blend of two unlike adapters is not weaker than either.

After Shoemake 1985 (animating rotation with quaternion curves), per module, on ΔW as one long vector. The result is a
weighted sum, so it stays low-rank: only inner products are needed.
"""

import math

from adapters.blend.sources import Part, inner

STRAIGHT = 1e-6
"""Below this sine the two point the same way, or opposite ways, and there is no arc to follow."""


def slerp_weights(parts: list[Part], fraction: float) -> list[float]:
    """What each part's ΔW is multiplied by: `fraction` 0 is all of source 0, 1 all of source 1.

    Where one of the two leaves the module alone or is zero, and where they are parallel, it is the straight line.
    """
    ends = {0: 1.0 - fraction, 1: fraction}
    straight = [ends[part.number] for part in parts]
    if len(parts) < 2:
        return straight
    norms = [math.sqrt(max(0.0, inner(part, part))) for part in parts]
    if not all(norms):
        return straight
    cosine = inner(*parts) / (norms[0] * norms[1])
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if math.sin(angle) < STRAIGHT:
        return straight
    return [math.sin(end * angle) / math.sin(angle) for end in straight]
