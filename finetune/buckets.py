"""A step's clips, cut into micro-batches so that short clips are not padded to long ones.

The micro-batch size of the settings is for clips of full length: it says how many frames fit into memory. More clips
of a shorter length fit as well, and go faster together. The gradient of a step does not depend on how its clips are
arranged (`finetune.loss`), so this is free to arrange them; it is a function of the draws alone, the same after a
resume.
"""

from collections.abc import Sequence
from functools import cache

from finetune.batches import Draw

OVERHEAD_FRAMES = 100
"""What a micro-batch costs beyond its frames, in frames: kernel launches, short rows. A guess; padding is exact."""


def micro_batches(
    draws: Sequence[Draw], batch_size: int, max_frames: int, rank: int, n_processes: int
) -> list[list[Draw]]:
    """This process's share of a step. No micro-batch is larger, padding included, than batch_size * max_frames.

    None holds both clips whose music is the target and clips that hold on to the base (`Draw.prior`).
    Every process gets as many clips as every other, of like lengths; at least one as long as there are as many clips.
    """
    ordered = sorted(draws, key=lambda draw: (draw.prior, -draw.n_frames, draw.clip_id, draw.start_frame))
    mine = ordered[rank::n_processes]
    kinds = ([draw for draw in mine if draw.prior is prior] for prior in (False, True))
    return [batch for kind in kinds for batch in _cut(kind, batch_size * max_frames)]


def even_batches(draws: Sequence[Draw], batch_size: int, rank: int, n_processes: int) -> list[list[Draw]]:
    """This process's share of some draws, `batch_size` at a time, those of like length together."""
    ordered = sorted(draws, key=lambda draw: (-draw.n_frames, draw.clip_id, draw.start_frame))
    batches = [ordered[first : first + batch_size] for first in range(0, len(ordered), batch_size)]
    return batches[rank::n_processes]


def padded_frames(batches: Sequence[Sequence[Draw]]) -> int:
    """Frames that are computed, padding included."""
    return sum(len(batch) * max(draw.n_frames for draw in batch) for batch in batches)


def _cut(ordered: list[Draw], budget: int) -> list[list[Draw]]:
    """The cheapest way to cut a list (longest first) into runs that fit: by dynamic programming, from the end."""

    @cache
    def cheapest(start: int) -> tuple[int, int]:
        if start == len(ordered):
            return 0, start
        longest = ordered[start].n_frames
        most = max(1, budget // longest)
        ends = range(start + 1, min(start + most, len(ordered)) + 1)
        return min((longest * (end - start) + OVERHEAD_FRAMES + cheapest(end)[0], end) for end in ends)

    for start in range(len(ordered), -1, -1):  # from the end, so that the recursion is never deep
        cheapest(start)
    batches, start = [], 0
    while start < len(ordered):
        end = cheapest(start)[1]
        batches.append(ordered[start:end])
        start = end
    return batches
