"""Settings of `woodshed evaluate`: an adapter or a run → a verdict."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from configs.section import Section

Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class GridSettings(Section):
    """Which checkpoints and strengths are tried."""

    strengths: list[Annotated[float, Field(gt=0, le=4)]] = Field(
        default_factory=lambda: [0.5, 0.75, 1.0, 1.25, 1.5], min_length=1
    )
    """Strengths to choose from. Above 1: where prior preservation holds an adapter back, it may want more."""
    checkpoints: bool = True
    """Of a run: try every checkpoint that was kept. Otherwise only the adapter as it is."""
    finalists: int = Field(default=3, ge=1, le=64)
    """How many of them generate audio; all others are only scored on tokens, which costs far less."""


class EvaluateSettings(Section):
    """All settings of `woodshed evaluate`."""

    mode: Literal["quick", "full"] = "quick"
    """quick: 12 pieces of each kind; full: 48, for narrower intervals."""
    pieces: int = Field(default=0, ge=0, le=1000)
    """Pieces of each kind, base and adapter alike; 0 means what the mode says."""
    duration_sec: float = Field(default=6.0, ge=3.2, le=30)
    """Length of each piece. Embeddings need at least three seconds."""
    prompts: list[Words] = Field(default_factory=list, max_length=256)
    """Prompts that should bring the style out. Empty: captions of held-out clips, then the adapter's own prompts."""
    foreign_prompts: list[Words] = Field(default_factory=list, max_length=256)
    """Other music that should stay as it was. Empty: a list of sixteen kinds that comes with Woodshed."""
    embedding: Literal["auto", "spectrum", "musicnn", "clap"] = "auto"
    """What turns sound into points whose distances are measured. auto: musicnn."""
    guidance: float = Field(default=3.0, ge=1, le=20)
    """Classifier-free guidance scale of everything that is played."""
    completions: int = Field(default=4, ge=0, le=256)
    """Training clips, and as many held-out ones, whose first three seconds are given to be continued; 0: none."""
    grid: GridSettings = GridSettings()
    """Which checkpoints and strengths are tried."""
    precision: Literal["auto", "bf16", "fp16", "fp32", "int8"] = "auto"
    """Arithmetic of what is played, as in `woodshed sample`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run."""
    seed: int = Field(default=1000, ge=0)
    """Seed of the first piece; base and adapter play each prompt from the same one."""

    @property
    def count(self) -> int:
        """Pieces of each kind."""
        return self.pieces or {"quick": 12, "full": 48}[self.mode]
