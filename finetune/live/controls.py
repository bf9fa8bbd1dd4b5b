"""What a player can set, as one value: whoever plays replaces it, whoever makes the music follows it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from configs.errors import UserError
from finetune.live.keys import DRUMS, Drums, Keys, Others

if TYPE_CHECKING:
    from configs.live import LiveSettings

MAX_PROMPTS = 8
"""Each text that is heard costs a cross-attention of its own in every layer."""
MAX_MOMENTS = 200
MAX_TEXT_CHARACTERS = 1000
MAX_STRENGTH = 10.0
"""Useful strengths lie between −1 and 2."""
MAX_LEVEL = 2.0
"""Of the recording that is played along with; 1 is as it is."""
CALM, WILD = 0.6, 1.4
"""Temperatures at both ends of the chaos knob; 1.0 in its middle."""
FEWEST, SPREAD = 25, 100
"""top_k is 25 at the calm end and 100 times as many at the wild one: 250, the usual, in the middle."""

SETTINGS = ("guidance", "temperature", "top_k", "top_p", "chunk_sec", "buffer_sec")
"""Numbers that can be turned; `LiveSettings` says their ranges."""


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
    keys: Keys = field(default_factory=Keys)
    drums: Drums = "free"
    context_level: float = 1.0
    """How loud the recording is that is played along with, beside the part."""

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

    def with_prompts(self, prompts: Sequence[Weighted], fade_sec: float | None = None) -> "Controls":
        """Other prompts; a story ends. Raises UserError as `checked_prompts`."""
        fade_sec = self.fade_sec if fade_sec is None else fade_sec
        return replace(self, prompts=checked_prompts(prompts), story=(), fade_sec=fade_sec)

    def with_weight(self, number: int, weight: float) -> "Controls":
        """Another weight for one prompt; a story ends. Raises UserError where there is no such prompt."""
        prompts = list(self.prompts)
        if not 0 <= number < len(prompts):
            raise UserError(f"there is no prompt number {number}: there are {len(prompts)}, counted from 0")
        prompts[number] = Weighted(prompts[number].text, weight)
        return self.with_prompts(prompts)

    def with_story(self, moments: Sequence[Moment]) -> "Controls":
        """Another story, or none. Raises UserError as `checked_story`."""
        return replace(self, story=checked_story(moments))

    def with_strength(self, adapter: str, strength: float) -> "Controls":
        """Another strength of an adapter. Raises UserError where it is out of range."""
        if not abs(strength) <= MAX_STRENGTH:
            raise UserError(f"a strength lies between -{MAX_STRENGTH:g} and {MAX_STRENGTH:g}, not {strength}")
        return replace(self, strengths={**self.strengths, adapter: float(strength)})

    def with_settings(self, **changes: float | int) -> "Controls":
        """Any of `SETTINGS`. Raises UserError for another name, or a value out of its range."""
        from pydantic import ValidationError

        from configs.live import LiveSettings

        if unknown := sorted(set(changes) - set(SETTINGS)):
            raise UserError(f"{unknown[0]!r} cannot change while playing", fix=f"these can: {', '.join(SETTINGS)}")
        try:
            return replace(self, **LiveSettings.model_validate(changes).model_dump(include={*changes}))
        except ValidationError as error:
            told = error.errors()[0]
            raise UserError(f"{'.'.join(map(str, told['loc']))}: {told['msg']}") from error

    def with_notes(self, pitches: Collection[int], others: Others | None = None) -> "Controls":
        """Other keys held. Raises UserError for a pitch that does not exist."""
        return replace(self, keys=self.keys.holding(pitches, others))

    def with_drums(self, drums: Drums) -> "Controls":
        """Drums on, off or free. Raises UserError for another word."""
        if drums not in DRUMS:
            raise UserError(f"drums are {', '.join(DRUMS)}, not {drums!r}")
        return replace(self, drums=drums)

    def with_context_level(self, level: float) -> "Controls":
        """The recording louder or softer. Raises UserError where it is out of range."""
        if not 0 <= level <= MAX_LEVEL:
            raise UserError(f"the recording's level lies between 0 and {MAX_LEVEL:g}, not {level:g}")
        return replace(self, context_level=float(level))


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
    total = sum(prompt.weight for prompt in prompts)
    if not total:
        raise UserError("every prompt has weight 0", fix="raise one of them, or press stop")
    if total == float("inf"):
        raise UserError("the weights are too large: only their ratio counts", fix="e.g. 1 and 0.5")
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
