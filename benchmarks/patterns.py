"""LM steps of a piece of music under each codebook pattern: the table in docs/patterns.md.

    python -m benchmarks.patterns [--codebooks 4] [--channels 1] [--seconds 30] [--frame_rate 50]

Counted on the patterns themselves: the first step and what lags add are in it. Of the pairs of codebooks of one frame,
"known" counts those where the coarser code stands at an earlier step, so that the finer one is predicted knowing it.
"""

import argparse

from adapters.pattern import Delays, Pattern
from adapters.pattern_coarse_first import CoarseFirst
from adapters.pattern_flattened import Flattened
from data_prep.lm_spec import interleaved_lags


def patterns(n_codebooks: int, channels: int) -> dict[str, Pattern]:
    """By name, the fewest steps first."""
    partial = tuple(int(k >= channels) for k in range(n_codebooks))
    return {
        "parallel": Delays((0,) * n_codebooks),
        "partial delay": Delays(partial),
        "delay": Delays(interleaved_lags(n_codebooks, channels)),
        "coarse first": CoarseFirst.of(n_codebooks, channels),
        "partial flattening": Flattened.coarse_apart(n_codebooks, channels),
        "flattening": Flattened.fully(n_codebooks),
    }


def known(pattern: Pattern, n_frames: int) -> tuple[int, int]:
    """Pairs of codebooks of one frame whose coarser code comes at an earlier step, and all pairs."""
    steps = pattern.step_of_frame(n_frames)[:, n_frames // 2].tolist()
    pairs = [(earlier, later) for later in range(len(steps)) for earlier in range(later)]
    return sum(steps[earlier] < steps[later] for earlier, later in pairs), len(pairs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codebooks", type=int, default=4, help="K over all channels (4).")
    parser.add_argument("--channels", type=int, default=1, choices=[1, 2], help="Channels (1).")
    parser.add_argument("--seconds", type=float, default=30.0, help="Length of the music (30).")
    parser.add_argument("--frame_rate", type=float, default=50.0, help="Codec frames per second (50).")
    args = parser.parse_args()
    n_frames = round(args.seconds * args.frame_rate)
    print("| pattern | steps | of which beyond one per frame | known |\n| --- | --- | --- | --- |")
    for name, pattern in patterns(args.codebooks, args.channels).items():
        n_steps = pattern.n_steps(n_frames)
        read, all_pairs = known(pattern, n_frames)
        print(f"| {name} | {n_steps} | {n_steps - 1 - n_frames} | {read} of {all_pairs} |")


if __name__ == "__main__":
    main()
