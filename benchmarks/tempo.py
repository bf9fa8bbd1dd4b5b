"""Are stated tempi right, and how often is one stated? Measures `data_prep.tempo`, and fits its weights.

    python -m benchmarks.tempo                                   as it stands, on grooves it was not fitted on
    python -m benchmarks.tempo --midi DIR --rendered DIR         on MIDI files through FluidSynth, too
    python -m benchmarks.tempo --fit --midi DIR --rendered DIR   leave one family or piece out, then fit on all

A tempo is right within 2.5 %. The music: `grooves` (20 families), and for MIDI the pieces that Debian's
openttd-openmsx holds (31, of which 28 keep one tempo for most of their length). Fitting takes two minutes of one
core; it prints what stands in data_prep/tempo_weights.py.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from benchmarks.grooves import FAMILIES, RATE_HZ, groove
from benchmarks.midi_tempo import render, stated_tempo
from data_prep.decode import stream
from data_prep.onsets import FRAMES_PER_SEC, Onsets, onsets
from data_prep.tempo import STATED_FROM, candidates, correlations_of, evidence, find_tempo

_NEAR = 0.025
_FITTED_SEEDS, _TESTED_SEEDS = 24, 8
_PIECE_WEIGHT = 3.0


@dataclass(frozen=True)
class Music:
    """Something with a known tempo, and its onsets [R, T]. `group` is left out as a whole in cross-validation."""

    group: str
    bpm: float
    rises: Float[np.ndarray, "R T"]
    weight: float = 1.0


@dataclass(frozen=True)
class Example:
    """The candidates of one piece: their tempi, the evidence for each, and which one is right (None: none)."""

    group: str
    bpm: float
    tempi: Float[np.ndarray, " M"]
    facts: Float[np.ndarray, "M W"]
    right: int | None
    weight: float


def grooves(seeds: range, workers: int) -> list[Music]:
    """Grooves of every family."""
    tasks = [(index, seed) for index in range(len(FAMILIES)) for seed in seeds]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(_groove, tasks, chunksize=8))


def _groove(task: tuple[int, int]) -> Music:
    made = groove(FAMILIES[task[0]], task[1])
    return Music(made.family, made.bpm, onsets(made.audio))


def pieces(midi: Path, rendered: Path) -> list[Music]:
    """The MIDI files below a folder that have one tempo."""
    found = []
    for path in sorted(midi.rglob("*.mid")):
        if bpm := stated_tempo(path):
            heard = Onsets()
            for block in stream(render(path, rendered, RATE_HZ), sample_rate_hz=RATE_HZ, channels=1):
                heard.add(block[0])
            found.append(Music(path.stem, bpm, heard.result(), _PIECE_WEIGHT))
    return found


def example(music: Music) -> Example:
    """What the weights are fitted on."""
    correlations = correlations_of(music.rises)
    beats, _ = candidates(correlations)
    tempi = 60 * FRAMES_PER_SEC / np.array(beats)
    off = np.abs(tempi / music.bpm - 1)
    right = int(np.argmin(off)) if off.min() <= _NEAR else None
    facts = np.stack([evidence(correlations, beat) for beat in beats])
    return Example(music.group, music.bpm, tempi, facts, right, music.weight)


def fit(examples: Sequence[Example], penalty: float) -> Float[np.ndarray, " W"]:
    """The conditional logit's weights, with an L2 penalty on those of the standardised evidence."""
    from scipy.optimize import minimize

    usable = [one for one in examples if one.right is not None]
    deviation = np.concatenate([one.facts for one in usable]).std(axis=0) + 1e-6
    most, width = max(len(one.facts) for one in usable), len(deviation)
    facts, hidden = np.zeros((len(usable), most, width)), np.full((len(usable), most), -1e9)
    for row, one in enumerate(usable):
        facts[row, : len(one.facts)], hidden[row, : len(one.facts)] = one.facts / deviation, 0.0
    rows, right = np.arange(len(usable)), np.array([one.right for one in usable])
    weight = np.array([one.weight for one in usable])
    weight = weight / weight.sum()

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        scores = facts @ w + hidden
        share = np.exp(scores - scores.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        off = share.copy()
        off[rows, right] -= 1
        slope = np.einsum("nm,nmw->w", off * weight[:, None], facts) + 2 * penalty * w
        return float(-(weight * np.log(share[rows, right] + 1e-12)).sum() + penalty * w @ w), slope

    return minimize(loss, np.zeros(width), jac=True, method="L-BFGS-B", options={"maxiter": 300}).x / deviation


def cross_validate(examples: Sequence[Example], penalty: float) -> None:
    """Each group judged by weights that never saw it."""
    said = []
    for group in sorted({one.group for one in examples}):
        weights = fit([one for one in examples if one.group != group], penalty)
        for one in (one for one in examples if one.group == group):
            scores = one.facts @ weights
            share = np.exp(scores - scores.max())
            best = int(np.argmax(share))
            said.append((one, float(share[best] / share.sum()), abs(one.tempi[best] / one.bpm - 1) <= _NEAR))
    for kind, chosen in (
        ("grooves", [s for s in said if s[0].weight == 1]),
        ("pieces", [s for s in said if s[0].weight != 1]),
        ("all", said),
    ):
        for threshold in (0.0, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96):
            stated = [right for _, confidence, right in chosen if confidence >= threshold]
            if stated:
                share = len(stated) / len(chosen)
                print(f"{kind}, from {threshold:.2f}: stated {share:.1%} of {len(chosen)}, right {np.mean(stated):.1%}")


def measure(music: Sequence[Music]) -> None:
    """What a person would be told, by group."""
    counts: dict[str, list[int]] = {}
    for one in music:
        found = find_tempo(one.rises).bpm
        row = counts.setdefault(one.group, [0, 0, 0])
        row[0] += 1
        row[1] += found is not None
        row[2] += found is not None and abs(found / one.bpm - 1) <= _NEAR
        if found is not None and abs(found / one.bpm - 1) > _NEAR:
            print(f"  wrong: {one.group}, {one.bpm:g}, stated {found:g}")
    for group, (count, stated, right) in counts.items():
        if count > 1:
            print(f"  {group:22} {count:4} stated {stated:4} right {right:4}")
    count, stated, right = (sum(row[i] for row in counts.values()) for i in range(3))
    print(
        f"{count} in all: stated {stated / count:.1%}, of these right {right / max(1, stated):.1%} (from {STATED_FROM})"
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--midi", type=Path)
    parser.add_argument("--rendered", type=Path, default=Path("rendered"))
    parser.add_argument("--penalty", type=float, default=3e-3)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    real = pieces(args.midi, args.rendered) if args.midi else []
    if args.fit:
        examples = [example(one) for one in [*grooves(range(_FITTED_SEEDS), args.workers), *real]]
        cross_validate(examples, args.penalty)
        numbers = ", ".join(f"{weight:.4g}" for weight in fit(examples, args.penalty))
        print(f"WEIGHTS = ({numbers})")
        return
    measure(grooves(range(1000, 1000 + _TESTED_SEEDS), args.workers))
    if real:
        measure(real)


if __name__ == "__main__":
    main()
