"""One endless piece that follows the controls while it is made. It belongs to one thread and knows of no other.

Controls are looked at five times a second of music, inside a chunk as well: what changes holds from the next token on.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from jaxtyping import Float, Shaped
from torch import Tensor

from adapters.decode.prompt_mix import PromptMix
from adapters.play_along import ContextTrack
from adapters.played_notes import drums_from_now, notes_from_now
from adapters.sampler import Sampler
from finetune.live.controls import Controls
from finetune.live.keys import Keys

MAX_STATES = 64
"""Texts whose states are kept."""
HEADROOM = 0.5
"""Of a part and a recording at once: two that reach full scale do not clip."""
RECENT_CHUNKS = 12
"""What the real-time factor is taken over."""
PLAYABLE = ("notes", "drums")
"""Kinds of condition that hands can play, where the base follows them."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Music that has just been made: the next samples of the piece."""

    run: int
    """Which piece: it rises with every reset."""
    number: int
    second: float
    """Of the piece, at the first sample."""
    waveform: Float[Tensor, "C n"]


class TextStates:
    """Text states of the prompts that were used last."""

    def __init__(self, sampler: Sampler) -> None:
        self._encode = sampler.encode
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def __getitem__(self, text: str) -> Shaped[Tensor, "L D_text"]:
        """Encode, or remember."""
        if text not in self._kept:
            self._kept[text] = self._encode([text])[0]
            if len(self._kept) > MAX_STATES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(text)
        return self._kept[text]


class Player:
    """Makes chunk after chunk; `wanted()` says how it should sound, `applied(second, controls)` hears what changed.

    With a `context` it plays along with that recording again and again, and both are heard.
    `delay_frames` is how far behind the newest token a sample is: the pattern's delay, and what the codec must know.

    Raises:
        UserError: the codec cannot stream; a prompt cannot be encoded.
    """

    def __init__(
        self,
        sampler: Sampler,
        states: TextStates,
        wanted: Callable[[], Controls],
        *,
        seed: int,
        run: int = 1,
        applied: Callable[[float, Controls], None] = lambda second, controls: None,
        context: ContextTrack | None = None,
    ) -> None:
        assert sampler.codec is not None
        self.sampler, self.states, self.run = sampler, states, run
        self.rate_hz = sampler.codec.sample_rate_hz
        self.delay_frames = sampler.engine.pattern.frames_behind + sampler.codec.stream().latency_frames
        self.samples = self.number = 0
        self.moment = -1
        self._wanted, self._applied, self._context = wanted, applied, context
        self._work: deque[tuple[float, float]] = deque(maxlen=RECENT_CHUNKS)
        self._open = ExitStack()
        controls = wanted()
        self.now = controls
        self.story_from_sec = 0.0
        self.mix = PromptMix.of([one.text for one in controls.first], [one.weight for one in controls.first])
        mix = self.mix.read_as(states.__getitem__)
        also = None if context is None else context.conditions
        self.music = self._open.enter_context(sampler.stream(mix, seed=seed, endless=True, also=also))
        self._strengths_at = self.music.generation.direct
        self.music.generation.direct = self._direct
        self._take_over(controls)
        self._chunks = iter(self.music)

    def _take_over(self, controls: Controls) -> None:
        """What the stream did not begin with."""
        self.music.set_sampling(**controls.sampling)
        for name, strength in controls.strengths.items():
            self.sampler.set_strength(name, strength)
        keys = controls.keys
        before = Keys(struck={pitch: times for pitch, times in keys.struck.items() if pitch not in keys.held})
        self._play_by_hand(controls, replace(controls, keys=before, drums="free"))

    @property
    def second(self) -> float:
        """How much of the piece has been handed out."""
        return self.samples / self.rate_hz

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of music per second of work, over the last chunks; None before there are three."""
        music, work = (sum(part) for part in zip(*self._work, strict=True)) if self._work else (0.0, 0.0)
        return music / work if len(self._work) >= 3 and work else None

    def next_chunk(self) -> Chunk:
        """Make the next chunk.

        Raises:
            UserError: the model's output is not a number.
        """
        before = self.music.spent_sec, self.music.played_sec
        wanted_frames = round(self._wanted().chunk_sec * self.sampler.frame_rate)
        self.music.chunk_frames = max(1, min(wanted_frames, self.music.generation.plan.window))
        waveform = next(self._chunks)
        self._work.append((self.music.played_sec - before[1], self.music.spent_sec - before[0]))
        chunk = Chunk(self.run, self.number, self.second, self._with_context(waveform))
        self.number += 1
        self.samples += waveform.shape[1]
        return chunk

    def _with_context(self, part: Float[Tensor, "C n"]) -> Float[Tensor, "C n"]:
        """The part, and the recording that it plays along with, which begins again at its end."""
        if self._context is None:
            return part
        level = self._wanted().context_level
        return HEADROOM * (part + level * self._context.from_sample(self.samples, part.shape[1]))

    def close(self) -> None:
        """Give the piece's memory back."""
        self._open.close()

    def _direct(self, second: float) -> bool:
        """Follow the controls; the decoder asks before it goes on."""
        wanted = self._wanted()
        if wanted is not self.now:
            self._change(wanted, second)
        self._follow_story(second)
        return self._strengths_at(second)

    def _change(self, wanted: Controls, second: float) -> None:
        before, self.now = self.now, wanted
        if wanted.sampling != before.sampling:
            self.music.set_sampling(**wanted.sampling)
        for name, strength in wanted.strengths.items():
            if before.strengths.get(name) != strength:
                self.sampler.set_strength(name, strength)
        if wanted.story != before.story:
            self.story_from_sec, self.moment = second, -1
        if not wanted.story and (wanted.prompts != before.prompts or before.story):
            self._move_to([one.text for one in wanted.prompts], [one.weight for one in wanted.prompts], second)
        self._play_by_hand(wanted, before)
        self._applied(second, wanted)

    def _play_by_hand(self, wanted: Controls, before: Controls) -> None:
        """Keys and drums, from the next frame on."""
        found: dict[str, Tensor] = {}
        if wanted.keys != before.keys and self.sampler.engine.spec.has("notes"):
            silent = wanted.keys.others == "silent"
            found["notes"] = notes_from_now(wanted.keys.held, wanted.keys.struck_since(before.keys), silent=silent)
        if wanted.drums != before.drums and self.sampler.engine.spec.has("drums"):
            found["drums"] = drums_from_now({"on": True, "off": False, "free": None}[wanted.drums])
        if found:
            self.music.set_conditions(found)

    def _follow_story(self, second: float) -> None:
        passed = second - self.story_from_sec
        due = sum(moment.second <= passed for moment in self.now.story) - 1
        if due != self.moment:
            self.moment = due
            self._move_to([self.now.story[due].text], [1.0], second)

    def _move_to(self, texts: Sequence[str], weights: Sequence[float], second: float) -> None:
        self.mix = self.mix.moved(texts, weights, second, self.now.fade_sec)
        self.music.generation.set_prompts([self.mix.read_as(self.states.__getitem__)])
