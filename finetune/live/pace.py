"""Whether the music is made as fast as it is heard, and what helps when it is not."""

from dataclasses import asdict, dataclass
from typing import Any

from finetune.live.controls import Controls

SAFE_FACTOR = 1.1
"""Below this real-time factor a busy moment is soon heard."""
GAP_REMEMBERED_SEC = 15.0
SHORT_WINDOW_SEC = 10.0


@dataclass(frozen=True)
class Pace:
    """What the page shows of timing."""

    playing: bool
    loaded: bool
    second: float
    """Of the piece: how much has been made."""
    chunk_sec: float
    delay_sec: float
    """What the model's pattern and the codec hold back, beyond the chunk."""
    buffer_sec: float
    """Music that is made and not yet heard."""
    real_time_factor: float | None
    """Seconds of music per second of work; None before three chunks."""
    control_latency_sec: float | None
    """From the last control's message to the moment its first changed sample is heard, on this machine."""
    gaps: int
    """How often the buffer ran dry since the piece began."""
    gap_sec: float
    moment: int | None = None
    """Of the story: which one plays, from 0 on; None where there is none."""
    hint: str = ""
    """Empty while all is well."""

    def as_message(self) -> dict[str, Any]:
        """For pages."""
        return {"type": "status", **{name: _rounded(value) for name, value in asdict(self).items()}}


def hint(
    factor: float | None,
    recent_gap: bool,
    controls: Controls,
    precision: str,
    window_sec: float,
    *,
    guided_by_condition: bool = False,
) -> str:
    """What to do when the machine does not keep up; empty when it does.

    `guided_by_condition`: prompts, guidance and the length of a window cost such a model nothing.
    """
    slow = factor is not None and factor < SAFE_FACTOR
    if not slow and not recent_gap:
        return ""
    if slow and factor is not None:
        keeps = "barely keeps up" if factor >= 1 else "cannot keep up"
        said = f"This machine makes {factor:.2f} s of music per second: it {keeps}."
    else:
        said = "The buffer ran dry: something else kept this machine busy."
    helps = []
    if slow and precision != "int8":
        helps.append("--precision int8")
    costs = slow and not guided_by_condition
    if costs and sum(one.weight > 0 for one in controls.prompts) > 1 and not controls.story:
        helps.append("fewer prompts at once")
    if costs and controls.guidance > 1:
        helps.append("guidance 1 (half the work)")
    if costs and window_sec > SHORT_WINDOW_SEC:
        helps.append(f"a shorter window (--window_sec {SHORT_WINDOW_SEC:g} --overlap_sec 4)")
    helps.append("a smaller base" if slow else "a longer buffer")
    return f"{said} What helps: {', '.join(helps)}."


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
