"""Which checkpoint, which strength: all of them on codes, which is cheap; the most promising ones played and heard.

Two numbers for each cell. Gained: how much better held-out music is predicted than by the base. KL: how far the
predictions on other music have moved from the base's. The finalists are some of those that no other cell beats in
both; among them the sound decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from finetune.judge.findings import Cell
from finetune.judge.subject import Candidate
from finetune.judge.teacher import Heard, Teacher

PIECES = 6
"""So many windows and so many foreign pieces stand for all of them in the cheap measures."""
LEAST_SHARE = 0.6


@dataclass(frozen=True)
class Tried:
    """A cell and the weights it is about."""

    cell: Cell
    candidate: Candidate


def try_all(
    teacher: Teacher,
    found: Sequence[Candidate],
    strengths: Sequence[float],
    own: Sequence[Heard],
    foreign: Sequence[Heard],
) -> list[Tried]:
    """Every checkpoint at every strength, on codes. `own`: held-out music; `foreign`: pieces of the base."""
    own, foreign = own[:PIECES], foreign[:PIECES]
    base = teacher.losses(own)
    tried = []
    for candidate in found:
        for strength in sorted(set(strengths)):
            gained = float(np.mean(base - teacher.losses(own, candidate.updates, strength, candidate.whole)))
            kl = float(np.mean(teacher.divergence(foreign, candidate.updates, strength, candidate.whole)))
            tried.append(Tried(Cell(candidate.step, float(strength), gained, kl), candidate))
    return tried


def finalists(tried: Sequence[Tried], count: int) -> list[Tried]:
    """Cells to play: evenly along those that no other cell beats in both numbers, from the one that gained most down.

    Cells that gained less than a share of the most are left out while there are others: they hardly change a thing.
    """
    most = max(one.cell.gained_nats for one in tried)
    front = [one for one in tried if not any(_beats(other.cell, one.cell) for other in tried)]
    front.sort(key=lambda one: -one.cell.gained_nats)
    worth_it = [one for one in front if one.cell.gained_nats >= LEAST_SHARE * most] or front[:1]
    chosen = [worth_it[round(place)] for place in np.linspace(0, len(worth_it) - 1, min(count, len(worth_it)))]
    rest = sorted((one for one in tried if one not in chosen), key=lambda one: -one.cell.gained_nats)
    return [*chosen, *rest[: count - len(chosen)]]


def choose(heard: Sequence[Cell]) -> tuple[Cell, str]:
    """The cell with the most style gained for what it forgets, and why; one that copies only if all do.

    Where style could not be measured, held-out loss decides.
    """
    clean = [cell for cell in heard if not cell.copies] or list(heard)
    if all(cell.style is None or not np.isfinite(cell.style.value) for cell in clean):
        best = max(clean, key=lambda cell: cell.gained_nats)
        return replace(best, chosen=True), (
            f"{best.name} predicts held-out music best among those played; how near it sounds could not be measured."
        )
    ranked = sorted(clean, key=lambda cell: -worth(cell))
    best = ranked[0]
    assert best.style is not None
    if best.forgetting is None:  # other music lies as near to the person's own as that does
        lost, most = "what it forgets could not be measured", "the most"
    else:
        lost, most = f"forgets {max(best.forgetting.value, 0):.0f} % of the rest", "the largest difference"
    why = (
        f"{best.name} gains {best.style.value:.0f} % of the style and {lost}: {most} among {len(heard)} that were "
        "played."
    )
    if len(ranked) > 1 and _overlap(best, ranked[1]):
        why += f" {ranked[1].name} is within its interval: more pieces (--mode full) would tell them apart."
    if len(clean) < len(heard):
        why += " Others were ruled out because they copy training songs."
    return replace(best, chosen=True), why


def worth(cell: Cell) -> float:
    """Percent of style gained minus percent forgotten."""
    style = cell.style.value if cell.style is not None and np.isfinite(cell.style.value) else -np.inf
    return style - (cell.forgetting.value if cell.forgetting is not None else 0.0)


def _overlap(best: Cell, next_best: Cell) -> bool:
    return next_best.style is not None and best.style is not None and next_best.style.high >= best.style.low


def _beats(one: Cell, other: Cell) -> bool:
    better = one.gained_nats >= other.gained_nats and one.kl_nats <= other.kl_nats
    return better and (one.gained_nats > other.gained_nats or one.kl_nats < other.kl_nats)
