"""A page to listen to: what a part plays along with, the part, both together, and a control, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_prep.report import ogg_uri
from data_prep.safe_write import write_text
from finetune.demo.pictures import picture

ABOUT = "Each row: the context track, the part that was played along with it, both together, and a control."


@dataclass(frozen=True)
class Row:
    """Recordings side by side, by what they are."""

    title: str
    takes: Mapping[str, Float[np.ndarray, "C _"]]


def write_listening_page(path: Path, title: str, rows: Sequence[Row], sample_rate_hz: int, about: str = ABOUT) -> None:
    """One HTML file with everything in it.

    Raises:
        UserError: the disk is full or refuses.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    shown = [
        {"title": row.title, "takes": [_take(name, audio, sample_rate_hz) for name, audio in row.takes.items()]}
        for row in rows
    ]
    page = environment.get_template("page.html.j2").render(title=title, about=about, rows=shown)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def _take(name: str, audio: Float[np.ndarray, "C N"], sample_rate_hz: int) -> dict[str, str]:
    sound = np.ascontiguousarray(audio, np.float32)
    return {"name": name, "sound": ogg_uri(sound, sample_rate_hz), "picture": picture(sound, sample_rate_hz)}
