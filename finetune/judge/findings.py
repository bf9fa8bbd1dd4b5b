"""What an evaluation found, as plain values: a verdict, its findings, the grid; to JSON and back."""

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from finetune.judge.intervals import Estimate

Level = Literal["good", "notice", "bad", "plain"]
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Finding:
    """One question with its answer. `text` is a sentence for people; `numbers` what else was measured for it."""

    id: str
    title: str
    text: str
    level: Level = "plain"
    estimate: Estimate | None = None
    unit: str = ""
    numbers: dict[str, Estimate | float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """A checkpoint at a strength. `gained` and `kl` are measured on codes, the rest only where pieces were played."""

    step: int | None
    """None: the adapter as it is."""
    strength: float
    gained_nats: float
    """Held-out loss of the base minus its own; above zero is better."""
    kl_nats: float
    """Mean KL per token from the base on foreign pieces."""
    style: Estimate | None = None
    """Share of the way from the base to the person's music, in percent."""
    forgetting: Estimate | None = None
    """How far foreign pieces moved, in percent of the distance from the base to the person's music."""
    copies: int = 0
    """Generations with a copied passage."""
    chosen: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return f"{'' if self.step is None else f'step {self.step}, '}strength {self.strength:g}"


@dataclass(frozen=True)
class Verdict:
    """Everything that `woodshed evaluate` found of an adapter."""

    name: str
    base: str
    headline: str
    findings: list[Finding]
    cells: list[Cell]
    choice: str
    """Why this checkpoint and strength."""
    step: int | None
    strength: float
    embedding: str
    settings: dict[str, Any]
    seconds: float
    notes: list[str] = field(default_factory=list)
    """What could not be measured, and why."""

    def __getitem__(self, id: str) -> Finding:
        """The finding of this id."""
        return next(one for one in self.findings if one.id == id)

    def get(self, id: str) -> Finding | None:
        """The finding of this id, where there is one."""
        return next((one for one in self.findings if one.id == id), None)

    def to_json(self) -> str:
        """As text. Numbers that are endless or none are null: JSON knows no others."""
        told = {"format": "woodshed-verdict", "format_version": FORMAT_VERSION, **asdict(self)}
        return json.dumps(_finite(told), indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> Verdict:
    """Read `to_json`'s text back.

    Raises:
        ValueError: it is no verdict of this version.
    """
    told = json.loads(text)
    if not isinstance(told, dict) or told.pop("format", None) != "woodshed-verdict":
        raise ValueError("no verdict of woodshed evaluate")
    if told.pop("format_version") != FORMAT_VERSION:
        raise ValueError("a verdict of another version")
    findings = [
        Finding(
            **one
            | {
                "estimate": _estimate(one["estimate"]),
                "numbers": {name: _estimate(value) for name, value in one["numbers"].items()},
            }
        )
        for one in told.pop("findings")
    ]
    cells = [
        Cell(**one | {"style": _estimate(one["style"]), "forgetting": _estimate(one["forgetting"])})
        for one in told.pop("cells")
    ]
    return Verdict(findings=findings, cells=cells, **told)


def _estimate(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ends = {"value": math.nan, "low": -math.inf, "high": math.inf}
    return Estimate(**{name: ends[name] if value[name] is None else value[name] for name in ends}, n=value["n"])


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
