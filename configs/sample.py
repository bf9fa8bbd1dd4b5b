"""Settings of `woodshed sample`: prompts → audio files."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from configs.section import Section


class CodebookSettings(Section):
    """One value per codebook, the coarsest first; where nothing is given, the value for all of them counts."""

    temperature: list[Annotated[float, Field(ge=0, le=10)]] = Field(default_factory=list)
    """Randomness of each codebook, e.g. 1,0.9,0.8,0.8: the finer ones calmer."""
    top_k: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)
    """Each codebook's k."""
    top_p: list[Annotated[float, Field(ge=0, lt=1)]] = Field(default_factory=list)
    """Each codebook's share."""


class SampleSettings(Section):
    """All settings of `woodshed sample`."""

    duration_sec: float = Field(default=10.0, gt=0, le=3600)
    """Length of each piece. Beyond the model's window it continues from its own last part."""
    guidance: float = Field(default=3.0, ge=1, le=20)
    """Classifier-free guidance scale; 1 means none and is faster."""
    context_guidance: float | None = Field(default=None, ge=1, le=20)
    """How strongly a context track, a melody or beats are followed, where an adapter adds them: a guidance scale of
    their own, so that `guidance` is the text's. Left out, `guidance` counts for everything. Half as much work again."""
    temperature: float = Field(default=1.0, ge=0, le=10)
    """Randomness; 0 always takes the likeliest token."""
    top_k: int = Field(default=250, ge=0)
    """Draw among the k likeliest tokens; 0 means all."""
    top_p: float = Field(default=0.0, ge=0, lt=1)
    """Draw among the likeliest tokens that hold this share of the probability; 0 means all."""
    text_encoder: str | None = None
    """Where the text encoder of an adapter is that was trained with another than the base's: a folder or a hub id.
    Left out: where the adapter, or the run it lies in, says."""
    codec: str | None = None
    """Where the codec of an adapter is that was trained with another than the base's. Left out: as text_encoder."""
    per_codebook: CodebookSettings = Field(default_factory=CodebookSettings)
    """Values for single codebooks (stereo: left, right, left, right, …)."""
    seed: int = Field(default=0, ge=0)
    """Same seed, same piece. The n-th piece of a call uses seed + n."""
    window_sec: float = Field(default=30.0, gt=0, le=30)
    """How much music the model attends to at once."""
    overlap_sec: float = Field(default=12.0, gt=0, lt=30)
    """How much of its last part a longer piece continues from (audiocraft moves on by 18 of 30 s: the same)."""
    batch_size: int = Field(default=8, ge=1, le=256)
    """Pieces played at once: several together cost far less than one after the other, and more memory."""
    decoder: str | None = None
    """A decoder.safetensors of `woodshed codec tune`, tuned for this base's codec: it makes the sound of the tokens."""
    format: Literal["wav", "flac"] = "wav"
    """File format; the settings are written into the file's tags."""
    precision: Literal["auto", "bf16", "fp16", "fp32", "int8"] = "auto"
    """Arithmetic of the model. auto: bf16 or fp16 on a GPU; on a CPU fp16 weights with fp32 sums where that is fast,
    else fp32. int8 is the fastest on a CPU and changes the music slightly; on a GPU it halves what the weights take."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run."""

    def conflicts(self) -> Iterator[str]:
        """Windows that would not move on."""
        if self.overlap_sec >= self.window_sec:
            yield (
                f"overlap_sec ({self.overlap_sec:g}) must be shorter than window_sec ({self.window_sec:g}), e.g. "
                f"--overlap_sec {0.4 * self.window_sec:g}."
            )
