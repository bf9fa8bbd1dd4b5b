"""Settings of `woodshed live`: an instrument in the browser."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from configs.section import Section


class LiveSettings(Section):
    """All settings of `woodshed live`. What the page can change while playing begins with these values."""

    guidance: float = Field(default=3.0, ge=1, le=20)
    """Classifier-free guidance scale; 1 means none and halves the work."""
    temperature: float = Field(default=1.0, ge=0, le=10)
    """Randomness; 0 always takes the likeliest token."""
    top_k: int = Field(default=250, ge=0)
    """Draw among the k likeliest tokens; 0 means all."""
    top_p: float = Field(default=0.0, ge=0, lt=1)
    """Draw among the likeliest tokens that hold this share of the probability; 0 means all."""
    chunk_sec: float = Field(default=0.5, ge=0.1, le=5)
    """Music is made in chunks of this length: shorter ones answer sooner and cost a little more."""
    buffer_sec: float = Field(default=0.75, ge=0.1, le=30)
    """How much music is made ahead of the ear: more of it survives a busy moment, less of it answers sooner."""
    fade_sec: float = Field(default=2.0, ge=0, le=30)
    """How long one mix of prompts takes to become the next."""
    window_sec: float = Field(default=20.0, gt=0, le=30)
    """How much music the model attends to at once: less is faster."""
    overlap_sec: float = Field(default=8.0, gt=0, lt=30)
    """How much of its last part each window continues from."""
    seed: int = Field(default=0, ge=0)
    """Same seed and same moves, same piece."""
    idle_sec: float = Field(default=10.0, ge=0, le=86_400)
    """This long after the last page has left, the music stops and the model's memory is given back."""
    text_encoder: str | None = None
    """Where the text encoder of an adapter is that was trained with another than the base's."""
    codec: str | None = None
    """Where the codec of an adapter is that was trained with another than the base's."""
    precision: Literal["auto", "bf16", "fp16", "fp32", "int8"] = "auto"
    """Arithmetic of the model, as for `woodshed sample`. int8 is the fastest on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run."""
    host: str = "127.0.0.1"
    """Address to listen on. Any other than loopback lets other machines in, with the token that is printed then."""
    port: int = Field(default=8765, ge=0, le=65_535)
    """Port of the page; 0 takes a free one."""
    osc_port: int | None = Field(default=None, ge=1, le=65_535)
    """Listen for OSC on this UDP port of the same address (needs python-osc). null: not."""

    def conflicts(self) -> Iterator[str]:
        """Windows that would not move on."""
        if self.overlap_sec >= self.window_sec:
            yield (
                f"overlap_sec ({self.overlap_sec:g}) must be shorter than window_sec ({self.window_sec:g}), e.g. "
                f"--overlap_sec {0.4 * self.window_sec:g}."
            )
