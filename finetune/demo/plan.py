"""What the demo does, in one place: where things go, the settings of each command, what is played."""

from dataclasses import dataclass
from pathlib import Path

from configs.errors import UserError
from configs.listeners import ListenerSettings
from configs.prep import CaptionSettings, PrepSettings, SegmentSettings
from configs.sample import SampleSettings
from configs.train import (
    CheckpointSettings,
    EvalSettings,
    LoraSettings,
    OptimSettings,
    PreviewSettings,
    TrainSettings,
)

TRIGGER = "in island style"
PROMPTS = (
    f"fast music with drums, 120 bpm, {TRIGGER}",
    f"steel drums and kalimba, {TRIGGER}",
    "slow ballad, piano, no drums, 80 bpm",
)
"""Two that ask for the new style, and an old one that should sound as before."""
SEED = 7
SONGS_SHOWN = 2
STRENGTH = 1.3
"""How strong the adapter plays: held to the base as it is sampled, it learns less than held-out music likes best (1.2),
and its trigger wants more (docs/log.md, "The prior as it is sampled")."""


@dataclass(frozen=True)
class Plan:
    """One demo. `steps` and `play_sec` are what makes it long or short."""

    out: Path
    songs: Path
    base: str = "starter"
    steps: int = 110
    play_sec: float = 8.0

    @property
    def dataset(self) -> Path:
        """Where `prep` writes."""
        return self.out / "dataset"

    @property
    def run(self) -> Path:
        """Where `train` writes."""
        return self.out / "run"

    @property
    def takes(self) -> Path:
        """Where the audio goes."""
        return self.out / "listen"

    @property
    def page(self) -> Path:
        """The last thing that is written."""
        return self.out / "report.html"

    def prep(self) -> PrepSettings:
        """Settings of `woodshed prep`."""
        return PrepSettings(
            base=self.base,
            segment=SegmentSettings(max_sec=20.0, min_sec=3.0),
            captions=CaptionSettings(trigger=TRIGGER, variants=2, listeners=ListenerSettings(use=[])),
            workers=2,
        )

    def train(self) -> TrainSettings:
        """Settings of `woodshed train`: a larger rate than for a large base, since this one is small.

        What holds on to the base, so that the third prompt sounds as before, is the default (`finetune.prior`), but
        for comparing as it is sampled: that holds other prompts better, and STRENGTH brings the trigger back. Clips are
        short, so that many begin: at a beginning the caption with its trigger says most of what comes
        (docs/log.md). Only what reads the words learns: that forgets least, and steel drums need no more.
        """
        every = max(1, self.steps // 5)
        return TrainSettings(
            base=self.base,
            steps=self.steps,
            batch_size=8,
            accumulation=1,
            max_clip_sec=1.5,
            prior_guidance=3.0,
            checkpointing=False,
            lora=LoraSettings(rank=32, alpha=32, targets=["cross_attention", "text_projection"]),
            optim=OptimSettings(lr=8e-3, warmup_steps=10),
            eval=EvalSettings(every_steps=every),
            preview=PreviewSettings(every_steps=0),
            checkpoint=CheckpointSettings(every_steps=every),
            loggers=[],
        )

    def sample(self) -> SampleSettings:
        """Settings of `woodshed sample`."""
        return SampleSettings.model_validate({"duration_sec": self.play_sec, "seed": SEED})


def demo_songs() -> Path:
    """The ten pieces that come with Woodshed.

    Raises:
        UserError: this installation is without them.
    """
    folder = Path(__file__).resolve().parents[2] / "starter" / "songs"
    if not any(folder.glob("*.ogg")):
        raise UserError(
            "The demo's songs are not part of this installation.",
            where=str(folder),
            fix="Give --songs a folder of your own recordings.",
        )
    return folder
