"""Does the part fall silent where its context rests? Onsets and level inside and outside the rest.

Every held-out band is followed with a rest of the whole context in its middle (`part`) and as it is (`control`).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.play_along.bands import RATE_HZ, REST_SEC, RESTS, Band
from benchmarks.play_along.play import audio_of, followed, samplers, share_with_error
from benchmarks.play_along.tasks import Task

SETTLE_SEC = 0.3
"""After the last beat before a rest, sounds may ring so long."""
WITH_REST, WHOLE = f"no_drums{RESTS}", "no_drums"


def measure_rests(
    task: Task, run: Path, bands: Sequence[Band], *, play_sec: float, guidance: float, context_guidance: float | None
) -> dict[str, list[dict[str, float]]]:
    """Of each band: onsets per second in the rest and outside, and by how much the rest is softer, in dB."""
    adapted, plain = samplers(run, play_sec=play_sec, guidance=guidance, context_guidance=context_guidance)
    words = [task.words(band.piece) for band in bands]
    found = {
        name: audio_of(adapted, words, followed(task, bands, plain.engine.spec, play_sec, side))
        for name, side in (("part", WITH_REST), ("control", WHOLE))
    }
    return {name: [inside_and_outside(one) for one in pieces] for name, pieces in found.items()}


def inside_and_outside(part: np.ndarray) -> dict[str, float]:
    """Onsets are found over the whole part, so that silence is not searched with a finer ear."""
    import librosa

    times = librosa.onset.onset_detect(y=part, sr=RATE_HZ, units="time")
    start, end = REST_SEC[0] + SETTLE_SEC, REST_SEC[1]
    length_sec = len(part) / RATE_HZ
    outside = (times < REST_SEC[0]) | (times > end + SETTLE_SEC)
    at = np.arange(len(part)) / RATE_HZ
    rest = (at >= start) & (at < end)
    level = [10 * np.log10(np.mean(part[where] ** 2) + 1e-8) for where in (rest, at < REST_SEC[0])]
    return {
        "inside_per_sec": float(((times >= start) & (times < end)).sum() / (end - start)),
        "outside_per_sec": float(outside.sum() / (length_sec - (end - REST_SEC[0]) - SETTLE_SEC)),
        "softer_db": float(level[1] - level[0]),
    }


def told(found: dict[str, list[dict[str, float]]]) -> list[str]:
    """A line for each."""
    return [
        f"{name:8} " + ", ".join(f"{key} {share_with_error([row[key] for row in rows])}" for key in rows[0])
        for name, rows in found.items()
    ]
