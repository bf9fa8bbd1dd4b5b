"""Music while it is being played: chunks of audio with bounded latency, and knobs that turn between them.

A sample is handed out once its frame is whole (the delay pattern holds it back by 3 frames) and the codec knows what
follows (6 frames more for MusicGen's): 0.18 s behind the newest token, plus the length of a chunk.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from adapters.decode.performance import Performance
from adapters.decode.story import Story
from data_prep.codec.port import Codec

FIRST_CHUNK_FRAMES = 25
"""The first chunk is half a second, so that sound starts soon; then `chunk_sec`."""


class AudioStream:
    """Iterate for chunks [C, n]. Between two chunks, `turn` and `tell` change how it goes on."""

    def __init__(
        self,
        performance: Performance,
        codec: Codec,
        stories: Callable[[Sequence[Any]], list[Story[Tensor]]],
        *,
        chunk_sec: float = 1.0,
    ) -> None:
        self.performance = performance
        self.codec = codec
        self.chunk_frames = max(1, round(chunk_sec * performance.frame.rate))
        self._stories = stories
        self.first_sound_sec: float | None = None
        self.played_sec = 0.0
        self.spent_sec = 0.0

    def __iter__(self) -> Iterator[Float[Tensor, "C n"]]:
        """Chunks until the piece is whole. Time between chunks, while the caller plays them, is not counted."""
        decoder = self.codec.stream()
        pushed, wanted = 0, min(FIRST_CHUNK_FRAMES, self.chunk_frames)
        last = False
        while not last:
            begun = time.perf_counter()
            self.performance.play(wanted)
            last = self.performance.done
            ready = self.performance.frames_ready(0)
            audio = decoder.push(self.performance.codes()[0][:, pushed:ready], last=last)
            pushed, wanted = ready, self.chunk_frames
            self.spent_sec += time.perf_counter() - begun
            self.played_sec += audio.shape[1] / self.codec.sample_rate_hz
            if audio.shape[1] and self.first_sound_sec is None:
                self.first_sound_sec = self.spent_sec
            yield audio

    @property
    def real_time_factor(self) -> float:
        """Seconds of music per second of work: above 1 it keeps up with a listener."""
        return self.played_sec / self.spent_sec if self.spent_sec else 0.0

    def turn(self, **changes: Any) -> None:
        """Change sampling from here on: `guidance`, `temperature`, `top_k`, `top_p`."""
        self.performance.turn(replace(self.performance.sampling, **changes))

    def tell(self, prompt: Any) -> None:
        """Another prompt from here on (words, text states, or a story in the piece's own time)."""
        self.performance.retell(self._stories([prompt]))
