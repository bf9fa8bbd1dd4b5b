"""report.html of an evaluation: one self-contained page, the verdict at its top, everything to be heard below."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from data_prep.report import ogg_uri
from finetune.judge.findings import Finding, Verdict
from finetune.judge.flow import Judged, Nearest
from finetune.judge.intervals import Estimate
from finetune.judge.pictures import grid_pictures
from finetune.judge.plan import KINDS

PAIRS_SHOWN, PIECES_SHOWN = 6, 3
WORDS = {"good": "good", "notice": "look", "bad": "fault", "plain": ""}
KIND_WORDS = {
    "own": "With the trigger",
    "bare": "The same without the trigger",
    "foreign": "Other music",
    "taught": "In the words of training songs",
}


def render(judged: Judged) -> str:
    """The page. Every text from outside is escaped by the template."""
    verdict = judged.verdict
    return _template().render(
        verdict=verdict,
        rows=[_row(one) for one in verdict.findings],
        pictures=grid_pictures(verdict.cells),
        cells=verdict.cells,
        listen=_listen(judged),
        nearest=_nearest(judged),
        shown=estimate_words,
    )


def summary_html(verdict: Verdict, link: str) -> str:
    """The verdict in a few lines, for the top of another page."""
    from jinja2 import Environment

    template: Any = Environment(autoescape=True).from_string(
        "<section class='verdict'><h2>Verdict</h2><p><b>{{ headline }}</b></p><ul>{% for one in findings %}"
        "<li>{{ one.title }}: {{ one.text }}</li>{% endfor %}</ul><p class='soft'>{{ choice }} "
        "<a href='{{ link }}'>All of it, with sound</a></p></section>"
    )
    return template.render(headline=verdict.headline, findings=verdict.findings, choice=verdict.choice, link=link)


def estimate_words(value: Estimate | float | None, unit: str = "") -> str:
    """A number with its interval, in as many digits as mean something."""
    if value is None:
        return "–"
    if isinstance(value, Estimate):
        return f"{_digits(value.value)}{unit and ' ' + unit} ({_digits(value.low)} to {_digits(value.high)})"
    return _digits(value)


def _digits(value: float) -> str:
    if not np.isfinite(value):
        return "?"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _row(finding: Finding) -> Mapping[str, Any]:
    numbers = [(name.replace("_", " "), estimate_words(value)) for name, value in finding.numbers.items()]
    main = "" if finding.estimate is None else estimate_words(finding.estimate, finding.unit)
    return {"finding": finding, "word": WORDS[finding.level], "main": main, "numbers": numbers}


def _listen(judged: Judged) -> list[Mapping[str, Any]]:
    """A few pieces of each kind, base and adapter side by side."""
    base = {piece.ask: piece for piece in judged.base}
    groups = []
    for kind in KINDS:
        pieces = [piece for piece in judged.adapted if piece.ask.kind == kind]
        distinct = list({piece.ask.prompt: piece for piece in reversed(pieces)}.values())[::-1][:PIECES_SHOWN]
        rows = [
            {
                "prompt": piece.ask.prompt,
                "takes": [
                    ("base", _sound(base[piece.ask].audio, judged)),
                    ("adapter", _sound(piece.audio, judged)),
                ],
            }
            for piece in distinct
        ]
        if rows:
            groups.append({"title": KIND_WORDS[kind], "rows": rows})
    return groups


def _nearest(judged: Judged) -> list[Mapping[str, Any]]:
    """The pieces that lie nearest to a training song, with that song beside them."""
    from data_prep.codec.registry import load_base_codec

    pairs: Sequence[Nearest] = judged.nearest[:PAIRS_SHOWN]
    codec = load_base_codec(judged.subject.files) if pairs else None
    return [
        {
            "prompt": pair.piece.ask.prompt,
            "piece": _sound(pair.piece.audio, judged),
            "song": Path(pair.window.clip.source).stem,
            "at": f"{pair.window.start_sec(judged.frame_rate):.0f} s",
            "sound": _sound(codec.decode(pair.window.codes).numpy(), judged),
            "words": f"{pair.distance / pair.usual:.2f} of what two of your songs differ by" if pair.usual else "",
        }
        for pair in pairs
        if codec is not None
    ]


def _sound(audio: Float[np.ndarray, "C N"], judged: Judged) -> str:
    return ogg_uri(audio, judged.sample_rate_hz)


def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html.j2")
