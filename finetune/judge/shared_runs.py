"""How much of a piece stands in another one, code for code: the longest run of frames that both have.

`exact` compares codes as they are; `within_edits` lets so many frames be changed, left out or put in. A run of one held
code (silence, a long note) says nothing of copying, so frames that repeat the one before count for nothing: lengths are
in frames that bring something new, and `new_frames` says how many a piece has.

The dynamic programme of `within_edits` is exact: the longest alignment that ends at a pair of frames with at most e
edits follows from those before it. Time and memory are proportional to the product of lengths, and to its root.
"""

import numpy as np
from jaxtyping import Int

Frames = Int[np.ndarray, " A"]


def first_codebook(codes: Int[np.ndarray, "K T"], channels: int = 1) -> Int[np.ndarray, " T"]:
    """The coarsest codes of each frame, as one number: those of the first codebook, of every channel."""
    return _packed(codes[:channels])


def all_codebooks(codes: Int[np.ndarray, "K T"]) -> Int[np.ndarray, " T"]:
    """All codes of each frame as one number. Two different frames get one number with a chance of 2⁻⁶³."""
    return _packed(codes)


def without_repeats(frames: Frames) -> Int[np.ndarray, " B"]:
    """The frames that differ from the one before them."""
    return frames[np.concatenate([[True], frames[1:] != frames[:-1]])] if len(frames) else frames


def exact(ours: Frames, theirs: Int[np.ndarray, " B"]) -> int:
    """The longest run of frames that stands in both."""
    return int(run_at_each(ours, theirs).max(initial=0))


def run_at_each(ours: Frames, theirs: Int[np.ndarray, " B"]) -> Int[np.ndarray, " A"]:
    """For each frame of ours, the longest run that ends there and stands anywhere in theirs."""
    longest = np.zeros(len(ours), dtype=np.int64)
    if not len(theirs):
        return longest
    run = np.zeros(len(theirs) + 1, dtype=np.int64)
    for place, frame in enumerate(ours):
        run[1:] = np.where(theirs == frame, run[:-1] + 1, 0)
        longest[place] = run.max()
    return longest


def within_edits(ours: Frames, theirs: Int[np.ndarray, " B"], edits: int) -> int:
    """The longest run of our frames that becomes a run of theirs by so many edits at most, at its ends too."""
    if not len(theirs) or not len(ours):
        return 0
    # reach[e][j]: our frames in the longest alignment that ends at (the frame in hand, their frame j) with ≤ e edits.
    before = np.zeros((edits + 1, len(theirs) + 1), dtype=np.int64)
    best = 0
    for place, frame in enumerate(ours, start=1):
        same = theirs == frame
        reach = np.zeros_like(before)
        for e in range(edits + 1):
            reach[e, 1:] = np.where(same, before[e, :-1] + 1, 0)
            if e:
                changed, put_in, left_out = before[e - 1, :-1] + 1, before[e - 1] + 1, reach[e - 1, :-1]
                reach[e] = np.maximum(reach[e], np.minimum(put_in, place))
                reach[e, 1:] = np.maximum(reach[e, 1:], np.maximum(changed, left_out))
        best = max(best, int(reach[-1].max()))
        before = reach
    return best


def _packed(codes: Int[np.ndarray, "k T"]) -> Int[np.ndarray, " T"]:
    if len(codes) == 1:
        return codes[0].astype(np.int64)
    # A fixed odd multiplier for each codebook: a hash that is linear in the codes, in 64 bits that wrap around.
    draw = np.random.default_rng(20_260_101).integers(1, 2**63, len(codes), dtype=np.int64) | 1
    with np.errstate(over="ignore"):
        return ((codes.astype(np.int64) + 1) * draw[:, None]).sum(axis=0)
