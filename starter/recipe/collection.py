"""Rendered pieces on disk: shards of audio and one line of facts per piece. Each piece is found by its seed.

    python -m starter.recipe.collection /tmp/starter/audio --pieces 600 --sample-rate-hz 16000
    python -m starter.recipe.collection /tmp/starter/held_out --pieces 60 --first-seed 1000000

A shard that exists is kept: a run that was stopped goes on where it was.
"""

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16

from starter.recipe.captions import captions
from starter.recipe.compose import compose

SHARD_PIECES = 50
WORDINGS = 4


def write_collection(
    folder: Path, n_pieces: int, *, first_seed: int = 0, sample_rate_hz: int = 32_000, workers: int = 1
) -> None:
    """Render the pieces of `n_pieces` seeds from `first_seed` on."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = [
        range(seed, min(seed + SHARD_PIECES, first_seed + n_pieces))
        for seed in range(first_seed, first_seed + n_pieces, SHARD_PIECES)
    ]
    missing = [shard for shard in shards if not _facts_path(folder, shard).exists()]
    write = partial(_write_shard, folder, sample_rate_hz)
    if workers == 1:
        for shard in missing:
            write(shard)
        return
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(write, missing))


def _facts_path(folder: Path, seeds: range) -> Path:
    return folder / f"{seeds.start:07}-{seeds.stop:07}.jsonl"


def _write_shard(folder: Path, sample_rate_hz: int, seeds: range) -> None:
    from starter.recipe.render import render  # reading a collection needs no synthesizer

    pieces = [compose(seed) for seed in seeds]
    audio = render(pieces, sample_rate_hz)
    ends = np.cumsum([len(one) for one in audio])
    whole = np.clip(np.concatenate(audio) * 32767, -32768, 32767).astype(np.int16)
    facts_path = _facts_path(folder, seeds)
    np.save(facts_path.with_suffix(".npy"), whole)
    lines = []
    for piece, one, end in zip(pieces, audio, ends, strict=True):
        place = {"first_sample": int(end) - len(one), "n_samples": len(one), "sample_rate_hz": sample_rate_hz}
        line = piece.facts() | place | {"captions": captions(piece, WORDINGS)}
        lines.append(json.dumps(line))
    part = facts_path.with_suffix(".part")
    part.write_text("\n".join(lines) + "\n")
    part.rename(facts_path)  # the facts come last: a shard with facts is whole


@dataclass
class Collection:
    """Reads what `write_collection` wrote; audio stays on disk until it is asked for."""

    folder: Path

    def __post_init__(self) -> None:
        self.facts: list[dict[str, Any]] = []
        self._audio: list[np.ndarray] = []
        for path in sorted(self.folder.glob("*.jsonl")):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            whole = np.load(path.with_suffix(".npy"), mmap_mode="r")
            for line in lines:
                self.facts.append(line)
                self._audio.append(whole[line["first_sample"] : line["first_sample"] + line["n_samples"]])
        if not self.facts:
            raise FileNotFoundError(f"no rendered pieces in {self.folder}: run starter.recipe.collection first")
        self.sample_rate_hz: int = self.facts[0]["sample_rate_hz"]

    def __len__(self) -> int:
        return len(self.facts)

    def audio(self, index: int) -> Int16[np.ndarray, " N"]:
        """The whole piece."""
        return self._audio[index]

    def crops(self, n_samples: int, seed: int) -> Iterator[np.ndarray]:
        """Endless random crops; the n-th crop of a seed is always the same. float32 in -1 … 1."""
        step = 0
        while True:
            rng = np.random.default_rng((seed, step))
            audio = self._audio[rng.integers(len(self._audio))]
            start = rng.integers(max(1, len(audio) - n_samples))
            yield audio[start : start + n_samples].astype(np.float32) / 32768
            step += 1


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pieces", type=int, default=600)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--sample-rate-hz", type=int, default=32_000)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    write_collection(
        args.folder,
        args.pieces,
        first_seed=args.first_seed,
        sample_rate_hz=args.sample_rate_hz,
        workers=args.workers,
    )
    found = Collection(args.folder)
    hours = sum(line["n_samples"] for line in found.facts) / found.sample_rate_hz / 3600
    print(f"{len(found)} pieces, {hours:.2f} h at {found.sample_rate_hz} Hz in {args.folder}")


if __name__ == "__main__":
    main()
