"""report.html of the demo: one self-contained page to look at and listen to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.prepared import PreparedDataset
from data_prep.report import ogg_uri
from finetune.demo.listen import Row, Take
from finetune.demo.pictures import picture
from finetune.demo.plan import TRIGGER, Plan
from finetune.report import plots
from finetune.run_folder import RunFolder
from finetune.run_log import read_log


def render(plan: Plan, seconds: Mapping[str, float], codec_rows: Sequence[Row], prompt_rows: Sequence[Row]) -> str:
    """The page. `seconds` is how long each stage took this time."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    lines = read_log(RunFolder(plan.run).log)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        base=plan.base,
        trigger=TRIGGER,
        facts=_facts(plan, lines, seconds),
        codec_rows=[_shown(row) for row in codec_rows],
        prompt_rows=[_shown(row) for row in prompt_rows],
        plots=plots(lines)[:2],
        learnt=_learnt(lines),
        captions=_captions(plan),
        songs=str(plan.songs),
        adapter=str(plan.run / "adapter"),
        out=str(plan.out),
    )


def _shown(row: Row) -> dict[str, Any]:
    return {"title": row.title, "takes": [_player(take) for take in row.takes]}


def _player(take: Take) -> dict[str, str]:
    return {
        "name": take.name,
        "picture": picture(take.audio, take.sample_rate_hz),
        "audio": ogg_uri(take.audio, take.sample_rate_hz),
    }


def _facts(plan: Plan, lines: Sequence[dict[str, Any]], seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    clips = PreparedDataset(plan.dataset).clips()
    minutes = sum(clip.duration_sec for clip in clips) / 60
    facts = [
        ("songs", str(len({clip.source for clip in clips}))),
        ("minutes of music", f"{minutes:.1f}"),
        ("training steps", str(sum(line["kind"] == "step" for line in lines))),
    ]
    facts += [(f"seconds of {name}", f"{spent:.0f}") for name, spent in seconds.items()]
    return facts


def _learnt(lines: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Held-out loss of each codebook before and after, and how far the predictions moved from the base's."""
    evaluations = [line for line in lines if line["kind"] == "eval"]
    base = next((line for line in lines if line["kind"] == "base"), None)
    proof = next((line for line in lines if line["kind"] == "proof"), None)
    if base is None or not evaluations:
        return []
    best = min(evaluations, key=lambda line: line["loss"])
    rows = []
    for number, (before, after) in enumerate(zip(base["codebooks"], best["codebooks"], strict=True)):
        moved = f"{proof['divergence'][number]:.3f}" if proof else "–"
        row = {"name": f"codebook {number}", "before": f"{before:.3f}", "after": f"{after:.3f}", "moved": moved}
        rows.append(row | {"change": f"{after - before:+.3f}"})
    return rows


def _captions(plan: Plan) -> list[str]:
    """A few of the captions that training saw, of different songs."""
    clips = PreparedDataset(plan.dataset).clips("train")
    return [clip.captions[0] for clip in {clip.source: clip for clip in clips}.values()][:4]
