"""What a player can set, as one value: whoever plays replaces it, whoever makes the music follows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from configs.errors import UserError

if TYPE_CHECKING:
    from configs.live import LiveSettings

MAX_PROMPTS = 8
"""Each text that is heard costs a cross-attention of its own in every layer."""
MAX_MOMENTS = 200
MAX_TEXT_CHARACTERS = 1000
MAX_STRENGTH = 10.0
"""Useful strengths lie between −1 and 2."""
CALM, WILD = 0.6, 1.4
"""Temperatures at both ends of the chaos knob; 1.0 in its middle."""
FEWEST, SPREAD = 25, 100
"""top_k is 25 at the calm end and 100 times as many at the wild one: 250, the usual, in the middle."""


@dataclass(frozen=True)
class Weighted:
    """A prompt and how much it counts among the others."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Moment:
    """A prompt and the second of its story at which it begins to fade in."""

    second: float
    text: str


@dataclass(frozen=True)
class Controls:
    """Everything that can change while the music plays."""

    prompts: tuple[Weighted, ...]
    strengths: Mapping[str, float] = field(default_factory=dict)
    guidance: float = 3.0
    temperature: float = 1.0
    top_k: int = 250
    top_p: float = 0.0
    chunk_sec: float = 0.5
    buffer_sec: float = 0.75
    fade_sec: float = 2.0
    story: tuple[Moment, ...] = ()
    """While there is a story, its moments are what plays, and `prompts` waits."""

    @classmethod
    def of(cls, settings: "LiveSettings", prompts: Sequence[Weighted], strengths: Mapping[str, float]) -> "Controls":
        """As the settings say."""
        return cls(
            checked_prompts(prompts),
            dict(strengths),
            settings.guidance,
            settings.temperature,
            settings.top_k,
            settings.top_p,
            settings.chunk_sec,
            settings.buffer_sec,
            settings.fade_sec,
        )

    @property
    def sampling(self) -> dict[str, float | int]:
        """What `AudioStream.set_sampling` takes."""
        return {"guidance": self.guidance, "temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}

    @property
    def first(self) -> tuple[Weighted, ...]:
        """The mix that a piece begins with."""
        return (Weighted(self.story[0].text),) if self.story else self.prompts


def chaos(amount: float) -> dict[str, float | int]:
    """Temperature and top_k of the one knob, from 0 (calm) over 0.5 (the usual) to 1 (wild)."""
    if not 0 <= amount <= 1:
        raise UserError(f"chaos must be between 0 and 1, not {amount:g}")
    return {"temperature": round(CALM + (WILD - CALM) * amount, 3), "top_k": round(FEWEST * SPREAD**amount)}


def checked_prompts(prompts: Sequence[Weighted]) -> tuple[Weighted, ...]:
    """Prompts that can be played.

    Raises:
        UserError: none or too many, one too long, or weights that mean nothing.
    """
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        raise UserError(f"between 1 and {MAX_PROMPTS} prompts can play at once, not {len(prompts)}")
    for prompt in prompts:
        _check_text(prompt.text)
        if not 0 <= prompt.weight < float("inf"):
            raise UserError(f"the weight of {prompt.text[:60]!r} must be 0 or more, not {prompt.weight}")
    if not any(prompt.weight > 0 for prompt in prompts):
        raise UserError("every prompt has weight 0", fix="raise one of them, or press stop")
    return tuple(prompts)


def checked_story(moments: Sequence[Moment]) -> tuple[Moment, ...]:
    """A story that can be played; empty: none.

    Raises:
        UserError: it does not begin at 0, its moments do not rise, or it is too long.
    """
    if len(moments) > MAX_MOMENTS:
        raise UserError(f"a story has at most {MAX_MOMENTS} moments, not {len(moments)}")
    seconds = [moment.second for moment in moments]
    rises = all(earlier < later for earlier, later in pairwise(seconds))
    if moments and not (seconds[0] == 0 and rises and seconds[-1] < float("inf")):
        raise UserError("a story begins at second 0 and its moments rise", fix="e.g. 0 calm piano, 15 add drums")
    for moment in moments:
        _check_text(moment.text)
    return tuple(moments)


def _check_text(text: str) -> None:
    if len(text) > MAX_TEXT_CHARACTERS:
        raise UserError(f"a prompt has at most {MAX_TEXT_CHARACTERS} characters, not {len(text)}")
