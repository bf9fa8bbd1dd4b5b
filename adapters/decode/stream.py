"""Music while it is being generated: chunks of audio with bounded latency, and settings that change between them.

A sample is handed out once its frame is whole (the delay pattern holds it back by 3 frames) and the codec knows what
follows (6 frames more for MusicGen's): 0.18 s behind the newest token, plus the length of a chunk.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from adapters.decode.generation import ENDLESS, Generation
from adapters.decode.prompt_mix import PromptMix
from adapters.decode.prompt_schedule import PromptSchedule
from adapters.device_memory import one_piece
from data_prep.codec.port import Codec

FIRST_CHUNK_SEC = 0.5
"""The first chunk is short, so that sound starts soon; then `chunk_sec`."""


class AudioStream:
    """Iterate for chunks [C, n]. Between two chunks, the methods named `set_…` change how it goes on.

    `chunk_frames` may be set at any time too: it counts for the next chunk.
    """

    def __init__(
        self,
        generation: Generation,
        codec: Codec,
        schedules_of: Callable[[Sequence[Any]], list[PromptSchedule[Tensor] | PromptMix[Tensor]]],
        *,
        chunk_sec: float = 1.0,
    ) -> None:
        self.generation = generation
        self.codec = codec
        self.chunk_frames = max(1, round(chunk_sec * generation.plan.frame_rate))
        self._schedules_of = schedules_of
        self.first_frames = max(1, round(FIRST_CHUNK_SEC * generation.plan.frame_rate))
        self.first_sound_sec: float | None = None
        self.played_sec = 0.0
        self.spent_sec = 0.0

    def __iter__(self) -> Iterator[Float[Tensor, "C n"]]:
        """Chunks until the piece is whole. Time between chunks, while the caller plays them, is not counted.

        Raises:
            DeviceTooSmallError: memory ran out.
        """
        decoder = self.codec.stream()
        pushed, longest = 0, self.first_frames
        last = False
        while not last:
            begun = time.perf_counter()
            with one_piece():
                self.generation.advance(min(longest, self.chunk_frames))
                last = self.generation.done
                ready = self.generation.frames_ready(0)
                audio = decoder.push(self.generation.frames(0, pushed, ready), last=last)
            pushed, longest = ready, ENDLESS
            self.spent_sec += time.perf_counter() - begun
            self.played_sec += audio.shape[1] / self.codec.sample_rate_hz
            if audio.shape[1] and self.first_sound_sec is None:
                self.first_sound_sec = self.spent_sec
            yield audio

    @property
    def real_time_factor(self) -> float:
        """Seconds of music per second of work: above 1 it keeps up with a listener."""
        return self.played_sec / self.spent_sec if self.spent_sec else 0.0

    def set_sampling(self, **changes: Any) -> None:
        """Change sampling from here on: `guidance`, `temperature`, `top_k`, `top_p`."""
        self.generation.set_sampling(replace(self.generation.sampling, **changes))

    def set_prompt(self, prompt: Any) -> None:
        """Another prompt from here on: words, text states, or a schedule or mix of prompts in the piece's own time."""
        self.generation.set_prompts(self._schedules_of([prompt]))

    def set_conditions(self, values: Mapping[str, Tensor]) -> None:
        """Other conditions from the next frame on, by kind: values [n, width], the last of which stays.

        Raises:
            ValueError: the model has no such kind, or it cannot change while it plays.
        """
        self.generation.set_conditions(0, values)
