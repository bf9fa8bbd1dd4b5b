"""What a page may say, as JSON: every message is one call of `LiveSession`. docs/live.md lists them.

Nothing else is accepted: an unknown field or a value out of range is an error message for its sender.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from configs.errors import UserError
from data_prep.note_slots import N_PITCHES
from finetune.live.controls import MAX_MOMENTS, MAX_PROMPTS, MAX_TEXT_CHARACTERS
from finetune.live.keys import Drums as DrumsWord
from finetune.live.keys import Others as OthersWord
from finetune.live.session import LiveSession

MAX_MESSAGE_BYTES = 256 * 1024

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Start(_Message):
    """Play, or go on."""

    type: Literal["start"]

    def act(self, session: LiveSession) -> None:
        """`session.start()`."""
        session.start()


class Stop(_Message):
    """Be silent."""

    type: Literal["stop"]

    def act(self, session: LiveSession) -> None:
        """`session.stop()`."""
        session.stop()


class Reset(_Message):
    """Another piece."""

    type: Literal["reset"]
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None

    def act(self, session: LiveSession) -> None:
        """`session.reset(seed)`."""
        session.reset(self.seed)


class Prompt(_Message):
    """A text and how much it counts."""

    text: Text
    weight: float = Field(default=1.0, ge=0)


class Prompts(_Message):
    """All prompts with their weights."""

    type: Literal["prompts"]
    prompts: list[Prompt] = Field(min_length=1, max_length=MAX_PROMPTS)
    fade_sec: float | None = Field(default=None, ge=0, le=30)

    def act(self, session: LiveSession) -> None:
        """`session.set_prompts(prompts, fade_sec)`."""
        session.set_prompts([(one.text, one.weight) for one in self.prompts], self.fade_sec)


class Weight(_Message):
    """The weight of one prompt."""

    type: Literal["weight"]
    prompt: int = Field(ge=0)
    weight: float = Field(ge=0)

    def act(self, session: LiveSession) -> None:
        """`session.set_weight(prompt, weight)`."""
        session.set_weight(self.prompt, self.weight)


class StoryMoment(_Message):
    """A text and when it begins."""

    second: float = Field(ge=0)
    text: Text


class Story(_Message):
    """Prompts over time, from now on; no moments end a story."""

    type: Literal["story"]
    moments: list[StoryMoment] = Field(max_length=MAX_MOMENTS)

    def act(self, session: LiveSession) -> None:
        """`session.set_story(moments)`."""
        session.set_story([(one.second, one.text) for one in self.moments])


class Strength(_Message):
    """How strong an adapter sounds."""

    type: Literal["strength"]
    adapter: str
    strength: float

    def act(self, session: LiveSession) -> None:
        """`session.set_strength(adapter, strength)`."""
        session.set_strength(self.adapter, self.strength)


class SamplingChange(_Message):
    """How tokens are drawn; what is left out stays."""

    type: Literal["sampling"]
    guidance: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None

    def act(self, session: LiveSession) -> None:
        """`session.set_sampling(...)`."""
        session.set_sampling(**self.model_dump(exclude={"type"}, exclude_none=True))


class Chaos(_Message):
    """Temperature and top_k together."""

    type: Literal["chaos"]
    amount: float

    def act(self, session: LiveSession) -> None:
        """`session.set_chaos(amount)`."""
        session.set_chaos(self.amount)


class PaceChange(_Message):
    """How much is made at once, and how much ahead; what is left out stays."""

    type: Literal["pace"]
    chunk_sec: float | None = None
    buffer_sec: float | None = None

    def act(self, session: LiveSession) -> None:
        """`session.set_pace(chunk_sec=, buffer_sec=)`."""
        session.set_pace(chunk_sec=self.chunk_sec, buffer_sec=self.buffer_sec)


class Notes(_Message):
    """The keys that are held now, all of them, for a base that follows notes."""

    type: Literal["notes"]
    pitches: list[Annotated[int, Field(ge=0, lt=N_PITCHES)]] = Field(max_length=N_PITCHES)
    others: OthersWord | None = None

    def act(self, session: LiveSession) -> None:
        """`session.set_notes(pitches, others)`."""
        session.set_notes(self.pitches, self.others)


class Drums(_Message):
    """Drums on, off, or as the model likes, for a base that follows that."""

    type: Literal["drums"]
    drums: DrumsWord

    def act(self, session: LiveSession) -> None:
        """`session.set_drums(drums)`."""
        session.set_drums(self.drums)


class ContextLevel(_Message):
    """How loud the recording is that an adapter plays along with."""

    type: Literal["context_level"]
    level: float

    def act(self, session: LiveSession) -> None:
        """`session.set_context_level(level)`."""
        session.set_context_level(self.level)


class Record(_Message):
    """Begin or end a recording."""

    type: Literal["record"]
    on: bool

    def act(self, session: LiveSession) -> None:
        """`session.record(on)`."""
        session.record(self.on)


Message = (
    Start
    | Stop
    | Reset
    | Prompts
    | Weight
    | Story
    | Strength
    | SamplingChange
    | Chaos
    | PaceChange
    | Notes
    | Drums
    | ContextLevel
    | Record
)
_READER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def read_message(text: str | bytes) -> Message:
    """One message.

    Raises:
        UserError: it is no JSON, too long, or nothing that docs/live.md lists.
    """
    if len(text) > MAX_MESSAGE_BYTES:
        raise UserError(f"a message has at most {MAX_MESSAGE_BYTES // 1024} KiB")
    try:
        return _READER.validate_json(text)
    except ValidationError as error:
        raise _told(error) from error


def as_message(fields: dict[str, Any]) -> Message:
    """One message from its fields, for controllers that send no JSON.

    Raises:
        UserError: as for `read_message`.
    """
    try:
        return _READER.validate_python(fields)
    except ValidationError as error:
        raise _told(error) from error


def _told(error: ValidationError) -> UserError:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return UserError(f"a message could not be used: {first['msg']}", where=place, fix="docs/live.md lists all messages")
