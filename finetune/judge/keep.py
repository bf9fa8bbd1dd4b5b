"""Store what was found: verdict.json and report.html beside the run; the choice and the verdict in the adapter itself.

What the adapter says of itself names no song.
"""

import math
import re
from pathlib import Path

from adapters import adapter_files
from adapters.metadata import EvaluatedFinding, EvaluationInfo, HeldOut, Woodshed
from adapters.redescribe import redescribe
from data_prep.safe_write import write_text
from finetune.judge.findings import Verdict
from finetune.judge.flow import Judged
from finetune.judge.intervals import Estimate
from finetune.judge.page import render

VERDICT, PAGE = "verdict.json", "report.html"
TOLD = ("style", "without_trigger", "forgetting", "prompt", "health", "copying")
"""Findings that travel with the adapter."""
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
"""A name as `repr` writes it: one with both kinds of quotes has the single ones behind a backslash."""


def write_out(judged: Judged, out: Path) -> Path:
    """Write verdict.json and report.html into a folder; returns the page.

    Raises:
        UserError: the disk is full or refuses.
    """
    write_text(out / VERDICT, judged.verdict.to_json())
    write_text(out / PAGE, render(judged))
    return out / PAGE


def store(judged: Judged) -> list[str]:
    """Put choice and verdict into the adapter's woodshed.json and card; what was done, in words.

    Where another checkpoint was chosen, its weights take the place of the adapter's.
    """
    subject, verdict = judged.subject, judged.verdict
    told = subject.adapter.woodshed
    if told is None:
        return ["This adapter has no woodshed.json: the strength cannot be stored in it."]
    woodshed = told.model_copy(update={"recommended_strength": verdict.strength, "evaluation": info_of(verdict)})
    said = [f"strength {verdict.strength:g} is what `woodshed sample` uses from now on"]
    if judged.chosen.updates is subject.adapter.updates:
        redescribe(subject.folder, woodshed, subject.adapter.updates)
        return said
    _replace_weights(judged, woodshed)
    return [f"the adapter has the weights of step {verdict.step} now", *said]


def info_of(verdict: Verdict) -> EvaluationInfo:
    """The verdict in short, without the name of any song."""
    return EvaluationInfo(
        headline=verdict.headline,
        findings=[
            EvaluatedFinding(
                id=one.id,
                text=_without_songs(one.text)[:2000],
                level=one.level,
                interval=None if one.estimate is None else _interval(one.estimate),
                unit=one.unit,
            )
            for one in verdict.findings
            if one.id in TOLD
        ],
        embedding=verdict.embedding,
        pieces=int(verdict.settings.get("pieces") or {"quick": 12, "full": 48}[verdict.settings["mode"]]),
        choice=verdict.choice[:2000],
    )


def _interval(estimate: Estimate) -> tuple[float, float, float] | None:
    values = (estimate.value, estimate.low, estimate.high)
    return values if all(math.isfinite(value) for value in values) else None


def _without_songs(text: str) -> str:
    """What an adapter says of itself names no recording: `is from 'song.wav'` loses the name."""
    return re.sub(rf", is from (?:{_QUOTED})", ", is from one of them", text)


def _replace_weights(judged: Judged, woodshed: Woodshed) -> None:
    """Write the chosen checkpoint as the adapter, with pieces of this evaluation as its samples."""
    from adapters.shareable import MAX_SAMPLES
    from data_prep.write_audio import write_audio

    subject = judged.subject
    training = woodshed.training
    assert training is not None and judged.chosen.step is not None
    losses, held_out = judged.losses, None
    if losses is not None:
        means = {"adapter": float(losses.held_out.mean()), "base": float(losses.base_held_out.mean())}
        held_out = HeldOut(**means, n_clips=len(losses.held_out))
    training = training.model_copy(update={"steps": judged.chosen.step})
    woodshed = woodshed.model_copy(update={"training": training, "held_out": held_out})
    pieces = list({p.ask.prompt: p for p in judged.adapted if p.ask.kind == "own"}.values())[: MAX_SAMPLES // 2]
    base = {piece.ask: piece for piece in judged.base}
    names = {piece.ask: f"samples/{number:02}" for number, piece in enumerate(pieces, start=1)}
    adapter_files.save(
        subject.folder,
        judged.chosen.updates,
        woodshed,
        dropout=subject.adapter.dropout,
        samples={piece.ask.prompt: f"{names[piece.ask]}.flac" for piece in pieces},
        base_samples={piece.ask.prompt: f"{names[piece.ask]}-base.flac" for piece in pieces},
        overwrite=True,
        whole=judged.chosen.whole,
    )
    for piece in pieces:
        for suffix, audio in (("", piece.audio), ("-base", base[piece.ask].audio)):
            write_audio(subject.folder / f"{names[piece.ask]}{suffix}.flac", audio, judged.sample_rate_hz)
