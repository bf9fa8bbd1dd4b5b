"""How long it takes to get a clip from the disk into a batch, and how long the device waits for it.

    uv run python -m benchmarks.input_pipeline

Tokens are views of the memory-mapped Arrow file; the other ways to read them stand beside. The idle share of a run is
in its log.jsonl (`idle_share` of every step); here it is what a batch takes over what a step of the small model
takes.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import measure
from data_prep.tokens import TokenReader, write_tokens
from finetune.batches import Draw, collate

FRAMES, CODEBOOKS, TEXT_TOKENS, TEXT_WIDTH = 1500, 4, 24, 768


class Reader:
    """Tokens from Arrow, text states from memory, where they are after the first epoch."""

    def __init__(self, tokens: TokenReader) -> None:
        self.tokens = tokens
        self.states = np.zeros((TEXT_TOKENS, TEXT_WIDTH), dtype=np.float32)

    def codes(self, clip_id: str) -> np.ndarray:
        """int16 [K, T]."""
        return self.tokens[clip_id]

    def text_state(self, caption: str) -> np.ndarray:
        """float32 [L, D_text]."""
        return self.states


def main() -> None:
    """Write a dataset of random tokens, read it in each way, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--step-sec", type=float, default=0.25, help="seconds of a micro-batch on the device")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results/input_pipeline.json"))
    args = parser.parse_args()
    measure.one_thread()
    measure.print_environment()
    with tempfile.TemporaryDirectory() as folder:
        ways, collated = cases(Path(folder) / "tokens", args.clips, args.batch)
        compared = measure.compare({**ways, "a whole batch": collated}, rounds=11)
    print(f"\nnoise (A/A): {compared.noise:.2f}\n| way | microseconds per clip |\n| --- | --- |")
    per_clip = {name: compared.timings[name].median / args.clips * 1e6 for name in [*ways, "a whole batch"]}
    for name, microseconds in per_clip.items():
        print(f"| {name} | {microseconds:.1f} |")
    share = per_clip["a whole batch"] * 1e-6 * args.batch / args.step_sec
    print(f"\na batch of {args.batch} is {share:.2%} of a micro-batch of {args.step_sec:g} s")
    measure.write(args.out, "input_pipeline", {"microseconds_per_clip": per_clip, "share": share})


def cases(folder: Path, n_clips: int, batch_size: int) -> tuple[dict[str, Callable[[], object]], Callable[[], object]]:
    """Ways to read all clips once, and all clips as batches."""
    import datasets

    draw = np.random.default_rng(0)
    ids = [f"clip{number:04}" for number in range(n_clips)]
    write_tokens(folder, ids, [draw.integers(0, 2048, (CODEBOOKS, FRAMES)).astype(np.int16) for _ in ids], "0" * 32)
    reader = Reader(TokenReader(folder))
    lists = datasets.load_from_disk(str(folder))
    arrays = lists.with_format("numpy")
    draws = [Draw(clip_id, "caption", 0, FRAMES) for clip_id in ids]

    def batches() -> None:
        for first in range(0, n_clips, batch_size):
            collate(draws[first : first + batch_size], reader, TEXT_WIDTH)  # pyright: ignore[reportArgumentType]

    ways: dict[str, Callable[[], object]] = {
        "datasets, Python lists": lambda: [lists[number]["codes"] for number in range(n_clips)],
        "datasets, numpy format": lambda: [arrays[number]["codes"] for number in range(n_clips)],
        "views of the Arrow file": lambda: [reader.codes(clip_id) for clip_id in ids],
    }
    return ways, batches


if __name__ == "__main__":
    main()
