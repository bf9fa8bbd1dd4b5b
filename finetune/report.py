"""report.html of a run: one self-contained page of curves, previews to listen to, proof and settings."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.train import TrainSettings
from configs.tree import to_yaml
from data_prep.safe_write import AGAIN, write_text
from finetune.preview import by_prompt, read_previews
from finetune.proof import Proof
from finetune.run_folder import RunFolder
from finetune.run_log import read_log

INK, ACCENT, SOFT, BLUE = "#24303a", "#b5622e", "#b9b2a6", "#2f6f8f"
MAX_AUDIO_BYTES = 24 * 2**20
"""Previews beyond this are linked, not embedded: the newest and the oldest of each prompt come first."""
SMOOTHED_SHARE = 0.05
"""Of the bold training curve: an exponential average over about this share of the run."""

Lines = Sequence[dict[str, Any]]


def write_report(
    folder: RunFolder, settings: TrainSettings, proof: Proof | None, step: int, base: str, *, again: str = AGAIN
) -> None:
    """Write the page of a run as its log and its previews are now; `proof` is None for a run that was stopped.

    Raises:
        UserError: the disk is full or refuses; `again` ends the sentence that says what to do then.
    """
    write_text(folder.report, render(folder, settings, proof, step, base), again=again)


def render(folder: RunFolder, settings: TrainSettings, proof: Proof | None, step: int, base: str) -> str:
    """The page. Every text from outside is escaped by the template."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    lines = read_log(folder.log)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.j2").render(
        name=folder.path.resolve().name,
        base=base,
        step=step,
        facts=facts(lines, proof),
        plots=plots(lines),
        previews=_embedded(folder.samples),
        proof=proof,
        settings=to_yaml(settings),
    )


def facts(lines: Lines, proof: Proof | None) -> list[tuple[str, str]]:
    """The few numbers that matter most: name → value."""
    steps, evaluations = _of(lines, "step"), _of(lines, "eval")
    seconds = sum(line["sec"] for line in steps)
    found = [("steps", str(len(steps))), ("time in steps", _clock(seconds))]
    if steps:
        found.append(("music heard", _clock(sum(line["audio_sec"] for line in steps))))
        found.append(("peak memory", f"{max(line['memory_bytes'] for line in steps) / 2**30:.2f} GiB"))
    if evaluations:
        best = min(evaluations, key=lambda line: line["loss"])
        found.append((f"held-out loss at step {best['step']}", f"{best['loss']:.3f}"))
        found.append(("the base's", f"{best['base_loss']:.3f}"))
    if proof is not None:
        found.append(("predictions moved by", f"{sum(proof.divergence) / len(proof.divergence):.3f} nats"))
    return found


def plots(lines: Lines) -> list[tuple[str, str]]:
    """Title and data URI of each picture that the log can fill."""
    steps, evaluations, base = _of(lines, "step"), _of(lines, "eval"), _of(lines, "base")
    made = []
    if steps:
        made.append(("Loss in nats per token", _loss_plot(steps, evaluations, base)))
    if evaluations:
        made.append(("Held-out loss of each codebook; dashed: the base's", _codebook_plot(evaluations, base)))
    if steps:
        made.append(("Learning rate", _rate_plot(steps)))
    return made


def _loss_plot(steps: Lines, evaluations: Lines, base: Lines) -> str:
    figure, axes = _axes()
    numbers, losses = [line["step"] for line in steps], [line["loss"] for line in steps]
    axes.plot(numbers, losses, color=SOFT, linewidth=0.8)
    axes.plot(numbers, smooth(losses), color=INK, label="training")
    if evaluations:
        points = [(line["step"], line["loss"]) for line in (*base, *evaluations)]
        axes.plot(*zip(*points, strict=True), color=ACCENT, marker="o", markersize=4, label="held out")
        axes.axhline(base[0]["loss"], color=ACCENT, linestyle="--", linewidth=1, label="held out, base")
    axes.legend(frameon=False, fontsize=8)
    return _uri(figure)


def _codebook_plot(evaluations: Lines, base: Lines) -> str:
    figure, axes = _axes()
    n_codebooks = len(evaluations[0]["codebooks"])
    for k in range(n_codebooks):
        shade = (0.18, 0.44, 0.56, 1.0 - 0.75 * k / n_codebooks)
        points = [(line["step"], line["codebooks"][k]) for line in (*base, *evaluations)]
        axes.plot(*zip(*points, strict=True), color=shade, marker="o", markersize=3, label=f"codebook {k}")
        axes.axhline(base[0]["codebooks"][k], color=shade, linestyle="--", linewidth=1)
    axes.legend(frameon=False, fontsize=8, ncols=2)
    return _uri(figure)


def _rate_plot(steps: Lines) -> str:
    figure, axes = _axes(height=1.8)
    axes.plot([line["step"] for line in steps], [line["lr"] for line in steps], color=BLUE)
    axes.set_ylim(bottom=0)
    return _uri(figure)


def smooth(values: Sequence[float]) -> list[float]:
    """Exponential average, corrected for its start (Kingma and Ba 2015, section 3)."""
    decay = 1 - 1 / max(1.0, SMOOTHED_SHARE * len(values))
    smoothed, average = [], 0.0
    for count, value in enumerate(values, start=1):
        average = decay * average + (1 - decay) * value
        smoothed.append(average / (1 - decay**count))
    return smoothed


def _axes(height: float = 3.0) -> tuple[Any, Any]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(colors=INK, labelsize=8)
    axes.set_xlabel("step", fontsize=8, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


def _uri(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _embedded(samples: Path) -> list[tuple[str, list[tuple[int, str]]]]:
    """Each prompt with (step, audio): data URIs as far as the page may grow, links after that."""
    room = MAX_AUDIO_BYTES
    found = []
    for prompt, pieces in by_prompt(read_previews(samples)):
        uris: dict[int, str] = {}
        for piece in _outermost_first(pieces):
            content = (samples / piece.file).read_bytes()
            fits = len(content) <= room
            room -= len(content) if fits else 0
            encoded = "data:audio/flac;base64," + base64.b64encode(content).decode()
            uris[piece.step] = encoded if fits else f"samples/{piece.file}"
        found.append((prompt, sorted(uris.items())))
    return found


def _outermost_first(pieces: Sequence[Any]) -> list[Any]:
    return [*pieces[-1:], *pieces[:1], *pieces[1:-1]] if len(pieces) > 1 else list(pieces)


def _of(lines: Lines, kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == kind]


def _clock(seconds: float | int) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
