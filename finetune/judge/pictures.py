"""The picture of the grid: style gained against forgetting, and what is cheap to know of all cells."""

import base64
import io
from collections.abc import Sequence
from typing import Any

from finetune.judge.findings import Cell

INK, ACCENT, SOFT, BLUE = "#24303a", "#b5622e", "#b9b2a6", "#2f6f8f"


def grid_pictures(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """Title and data URI: the cells that were played, with intervals; and all cells on codes, a line a strength."""
    made = []
    heard = [cell for cell in cells if cell.style is not None and cell.forgetting is not None]
    if heard:
        made.append(("Style gained against forgetting, in %, of those that were played", _heard(heard)))
    if len(cells) > 1:
        made.append(("Every checkpoint and strength, on codes", _on_codes(cells)))
    return made


def _heard(cells: Sequence[Cell]) -> str:
    figure, axes = _axes("forgetting, %", "style gained, %")
    for cell in cells:
        style, lost = cell.style, cell.forgetting
        assert style is not None and lost is not None
        colour = ACCENT if cell.chosen else BLUE
        x, y = lost.value, style.value
        axes.errorbar(
            x,
            y,
            xerr=[[x - lost.low], [lost.high - x]],
            yerr=[[y - style.low], [style.high - y]],
            fmt="o",
            color=colour,
            elinewidth=0.8,
            markersize=9 if cell.chosen else 6,
        )
        label = cell.name + (" (chosen)" if cell.chosen else "")
        axes.annotate(label, (x, y), textcoords="offset points", xytext=(8, 6), fontsize=8, color=colour)
    axes.axhline(0, color=SOFT, linewidth=0.8)
    axes.axvline(0, color=SOFT, linewidth=0.8)
    return _uri(figure)


def _on_codes(cells: Sequence[Cell]) -> str:
    figure, axes = _axes("moved on other music, nats a token (KL)", "held-out loss gained, nats")
    strengths = sorted({cell.strength for cell in cells})
    for number, strength in enumerate(strengths):
        line = [cell for cell in cells if cell.strength == strength]
        shade = (0.18, 0.44, 0.56, 0.35 + 0.65 * (number + 1) / len(strengths))
        axes.plot([c.kl_nats for c in line], [c.gained_nats for c in line], "o-", color=shade, markersize=4,
                  linewidth=0.8, label=f"strength {strength:g}")  # fmt: skip
        for cell in line:
            if cell.step is not None:
                axes.annotate(str(cell.step), (cell.kl_nats, cell.gained_nats), textcoords="offset points",
                              xytext=(3, -9), fontsize=6.5, color=INK)  # fmt: skip
    chosen = [cell for cell in cells if cell.chosen]
    axes.plot([c.kl_nats for c in chosen], [c.gained_nats for c in chosen], "o", color=ACCENT, markersize=9, zorder=0)
    axes.legend(frameon=False, fontsize=8)
    return _uri(figure)


def _axes(across: str, up: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(colors=INK, labelsize=8)
    axes.set_xlabel(across, fontsize=8.5, color=INK)
    axes.set_ylabel(up, fontsize=8.5, color=INK)
    axes.margins(0.12)
    return figure, axes


def _uri(figure: Any) -> str:
    held = io.BytesIO()
    figure.savefig(held, format="svg")
    return "data:image/svg+xml;base64," + base64.b64encode(held.getvalue()).decode()
