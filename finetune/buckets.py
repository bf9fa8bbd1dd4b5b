"""A step's clips, cut into micro-batches so that short clips are not padded to long ones.

The micro-batch size of the settings is for clips of full length: it says how many frames fit into memory. More clips
of a shorter length fit as well, and go faster together. The gradient of a step does not depend on how its clips are
arranged (`finetune.loss`), so this is free to arrange them; it is a function of the draws alone, the same after a
resume.
"""

from collections.abc import Sequence
from functools import cache
from itertools import groupby

from finetune.batches import Draw

OVERHEAD_FRAMES = 100
"""What a micro-batch costs beyond its frames, in frames: kernel launches, short rows. A guess; padding is exact."""


def micro_batches(
    draws: Sequence[Draw], batch_size: int, max_frames: int, rank: int, n_processes: int
) -> list[list[Draw]]:
    """This process's share of a step. No micro-batch is larger, padding included, than batch_size * max_frames.

    None holds both clips whose music is the target and clips that hold on to the base (`Draw.prior`).
    Every process gets as many clips as every other, of like lengths; at least one as long as there are as many clips.
    All cut at the same places, so that they compute the same number of times, which a sharded base asks for.
    """
    ordered = sorted(draws, key=lambda draw: (draw.prior, -draw.n_frames, draw.clip_id, draw.start_frame))
    rounds = [ordered[first : first + n_processes] for first in range(0, len(ordered), n_processes)]
    batches = []
    for _, same in groupby(rounds, key=lambda clips: {draw.prior for draw in clips}):
        together = list(same)
        for start, end in _cut([max(draw.n_frames for draw in clips) for clips in together], batch_size * max_frames):
            batches.append([clips[rank] for clips in together[start:end] if rank < len(clips)])
    return [batch for batch in batches if batch]


def even_batches(draws: Sequence[Draw], batch_size: int, rank: int, n_processes: int) -> list[list[Draw]]:
    """This process's share of some draws, `batch_size` at a time, those of like length together."""
    ordered = sorted(draws, key=lambda draw: (-draw.n_frames, draw.clip_id, draw.start_frame))
    batches = [ordered[first : first + batch_size] for first in range(0, len(ordered), batch_size)]
    return batches[rank::n_processes]


def padded_frames(batches: Sequence[Sequence[Draw]]) -> int:
    """Frames that are computed, padding included."""
    return sum(len(batch) * max(draw.n_frames for draw in batch) for batch in batches)


def _cut(lengths: list[int], budget: int) -> list[tuple[int, int]]:
    """The cheapest places to cut a list (longest first) into runs that fit: by dynamic programming, from the end."""

    @cache
    def cheapest(start: int) -> tuple[int, int]:
        if start == len(lengths):
            return 0, start
        most = max(1, budget // lengths[start])
        ends = range(start + 1, min(start + most, len(lengths)) + 1)
        return min((lengths[start] * (end - start) + OVERHEAD_FRAMES + cheapest(end)[0], end) for end in ends)

    for start in range(len(lengths), -1, -1):  # from the end, so that the recursion is never deep
        cheapest(start)
    runs, start = [], 0
    while start < len(lengths):
        runs.append((start, cheapest(start)[1]))
        start = runs[-1][1]
    return runs
