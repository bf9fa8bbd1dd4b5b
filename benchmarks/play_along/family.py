"""Is the family of instruments that a prompt asks for still heard, when something else is followed too?

Each held-out band is asked for in its own family and in others, with the condition, without it, and from the base. The
starter's probe judges; it learns here from the training bands' own parts through the codec, and its own share of right
answers on the held-out bands stands beside (`true`): with words for a band's own family only.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.play_along.bands import LEARN_SEC, RATE_HZ, Band
from benchmarks.play_along.play import audio_of, followed, samplers, share_with_error
from benchmarks.play_along.tasks import Task
from data_prep.codec.port import Codec
from starter.recipe.manners import FAMILIES
from starter.recipe.probe import Probe, features

PLAY_SEC = 4.0
OTHERS = 2


def measure_family(
    task: Task,
    run: Path,
    bands: Sequence[Band],
    learnt_from: Sequence[Band],
    *,
    guidance: float,
    context_guidance: float | None,
) -> dict[str, list[dict[str, float]]]:
    """A row per piece: whether the family asked for was heard, and whether it was the band's own."""
    adapted, plain = samplers(run, play_sec=PLAY_SEC, guidance=guidance, context_guidance=context_guidance)
    assert plain.codec is not None
    probe = probe_of(task, learnt_from, plain.codec)
    asked = [(number, family) for number, band in enumerate(bands) for family in asked_of(task, band)]
    words = [task.words_for(bands[number].piece, family) for number, family in asked]
    given = followed(task, bands, plain.engine.spec, PLAY_SEC)
    without = samplers(run, play_sec=PLAY_SEC, guidance=guidance, context_guidance=None)[0]
    played = {
        "with": audio_of(adapted, words, [given[number] for number, _ in asked]),
        "without": audio_of(without, words),
        "base": audio_of(plain, words),
    }
    found = {name: rows_of(probe, pieces, asked, task, bands) for name, pieces in played.items()}
    own = [(number, own_family(task, band)) for number, band in enumerate(bands)]
    true = [excerpt for band in bands for excerpt in excerpts(band, task, plain.codec)[:1]]
    return {**found, "true": rows_of(probe, true, own, task, bands)}


def probe_of(task: Task, bands: Sequence[Band], codec: Codec) -> Probe:
    """Taught by three excerpts of each band."""
    heard, answers = [], []
    for band in bands:
        for excerpt in excerpts(band, task, codec):
            heard.append(features(excerpt, RATE_HZ))
            answers.append(own_family(task, band))
    return Probe(torch.stack(heard), {"family": answers})


def excerpts(band: Band, task: Task, codec: Codec) -> list[np.ndarray]:
    """As long as what is played, half overlapping."""
    audio = codec.decode(band.codes[task.target][:, : round(LEARN_SEC * codec.frame_rate)])[0].numpy()
    n = round(PLAY_SEC * RATE_HZ)
    return [audio[start : start + n] for start in range(0, len(audio) - n + 1, n // 2)]


def own_family(task: Task, band: Band) -> str:
    """Of the chords where the part is an accompaniment, else of the lead."""
    return band.piece.second if task.target == "no_lead" else band.piece.family


def asked_of(task: Task, band: Band) -> list[str]:
    """The band's own family, and others, each as often."""
    names, own = sorted(FAMILIES), own_family(task, band)
    first = names.index(own)
    steps = np.random.default_rng(band.piece.seed).permutation(np.arange(1, len(names)))[:OTHERS]
    return [own, *(names[(first + int(step)) % len(names)] for step in steps)]


def rows_of(
    probe: Probe,
    pieces: Sequence[np.ndarray],
    asked: Sequence[tuple[int, str]],
    task: Task,
    bands: Sequence[Band],
) -> list[dict[str, float]]:
    """What the probe hears in each."""
    said = probe.answers(torch.stack([features(one, RATE_HZ) for one in pieces]))["family"]
    return [
        {"right": float(heard == family), "own": float(family == own_family(task, bands[number]))}
        for heard, (number, family) in zip(said, asked, strict=True)
    ]


def told(found: dict[str, list[dict[str, float]]]) -> list[str]:
    """A line for each: all pieces, then those whose prompt names the band's own family, and those that name another."""
    lines = []
    for name, rows in found.items():
        parts = [
            ("all", rows),
            ("own", [row for row in rows if row["own"]]),
            ("other", [row for row in rows if not row["own"]]),
        ]
        shares = [f"{of} {share_with_error([row['right'] for row in some])}" for of, some in parts if some]
        lines.append(f"{name:8} family as asked: {', '.join(shares)} (n = {len(rows)})")
    return lines
