"""report.html of a codec comparison: one self-contained page with the table, and the worst passages to listen to."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from data_prep.codec_measures.spectral import MEASURE_RATE_HZ
from data_prep.report import ogg_uri
from data_prep.safe_write import write_text
from finetune.codec_report.contestants import Contestant
from finetune.codec_report.measure import Result, play
from finetune.codec_report.passages import Passage
from finetune.demo.pictures import picture

MAX_LEVELS_HEARD = 4


@dataclass(frozen=True)
class Report:
    """What was measured, and on what."""

    songs: Path
    passages: list[Passage]
    left_out: list[str]
    results: list[Result]
    has_visqol: bool


def write_report(report: Report, contestants: Sequence[Contestant], out: Path, *, n_players: int) -> Path:
    """Write report.html and report.json; returns the page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("page.html.j2").render(
        songs=str(report.songs),
        facts=_facts(report),
        left_out=report.left_out,
        lost=[lost_sentence(result) for result in report.results if result.n_codebooks],
        results=report.results,
        has_visqol=report.has_visqol,
        rows=[_row(report, contestants, number) for number in worst_first(report.results)[:n_players]],
    )
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "report.json", json.dumps(to_json(report), indent=1) + "\n")
    write_text(out / "report.html", page)
    return out / "report.html"


def to_json(report: Report) -> dict[str, Any]:
    """All figures."""
    return {
        "songs": str(report.songs),
        "passages": [{"song": p.song, "start_sec": p.segment.start_sec, "seconds": p.segment.duration_sec}
                     for p in report.passages],
        "left_out": report.left_out,
        "results": [result.to_json() for result in report.results],
    }  # fmt: skip


def worst_first(results: Sequence[Result]) -> list[int]:
    """Numbers of the passages, those first where the first codec with all its codebooks loses most (mel distance)."""
    distances = [one.mel_distance for one in results[0].levels[-1].passages]
    return sorted(range(len(distances)), key=lambda number: -distances[number])


def lost_sentence(result: Result) -> str:
    """What a codec can never give back, in one sentence."""
    best = result.levels[-1]
    mono = "stereo becomes mono, " if result.channels == 1 else ""
    return (
        f"{result.name}: {mono}everything above {result.sample_rate_hz / 2000:g} kHz is gone, and what is left is "
        f"kept in {best.bitrate_bps / 1000:.3g} kbps, {best.compression:.0f} times smaller than 16-bit PCM: "
        f"mel distance {best.mean.mel_distance:.2f}, SI-SDR {best.mean.si_sdr_db:.1f} dB."
    )


def _facts(report: Report) -> list[tuple[str, str]]:
    seconds = sum(passage.segment.duration_sec for passage in report.passages)
    return [
        ("songs", str(len({passage.song for passage in report.passages}))),
        ("passages", str(len(report.passages))),
        ("minutes", f"{seconds / 60:.1f}"),
        ("left out", str(len(report.left_out))),
    ]


def _row(report: Report, contestants: Sequence[Contestant], number: int) -> dict[str, Any]:
    passage = report.passages[number]
    channels = max(contestant.channels for contestant in contestants)
    takes = [_take("recording", passage.read(MEASURE_RATE_HZ, channels), None)]
    for contestant, result in zip(contestants, report.results, strict=True):
        made = play(contestant, passage)
        for level in heard_levels(len(made)):
            title = f"{contestant.name}, {result.levels[level].name}"
            takes.append(_take(title, made[level], result.levels[level].passages[number].mel_distance))
    return {"title": passage.title, "takes": takes}


def heard_levels(count: int) -> list[int]:
    """At most four levels, the fewest and the most bits among them."""
    if count <= MAX_LEVELS_HEARD:
        return list(range(count))
    return sorted({round(at) for at in np.linspace(0, count - 1, MAX_LEVELS_HEARD)})


def _take(name: str, audio: Float[np.ndarray, "C N"], mel: float | None) -> dict[str, str]:
    note = "" if mel is None else f"mel distance {mel:.2f}"
    return {
        "name": name,
        "note": note,
        "picture": picture(audio, MEASURE_RATE_HZ),
        "audio": ogg_uri(audio, MEASURE_RATE_HZ),
    }
