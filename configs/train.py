"""Settings of `woodshed train`: a prepared dataset → a run with an adapter."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from configs.pattern_names import PatternName
from configs.section import Section

Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
DecayRate = Annotated[float, Field(ge=0, lt=1)]


class LoraSettings(Section):
    """The adapter: low-rank updates (Hu et al. 2021, arXiv:2106.09685)."""

    rank: int = Field(default=16, ge=1, le=512)
    """Rank r of each update."""
    alpha: float = Field(default=16.0, gt=0)
    """Scale: an update is multiplied by alpha / rank (alpha / sqrt(rank) with rslora)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input. 0 is faster and smaller in memory."""
    targets: list[Words] = Field(default_factory=lambda: ["attention", "ffn", "text_projection"], min_length=1)
    """Which parts of the model learn. In MusicGen: attention, self_attention, cross_attention, q, k, v, out, ffn,
    text_projection. What a base does not have is refused by name."""
    rslora: bool = False
    """Rank-stabilised scale (Kalajdzievski 2023, arXiv:2312.03732)."""
    dora: bool = False
    """Weight-decomposed updates (Liu et al. 2024, arXiv:2402.09353): slower, sometimes better at low rank."""
    init: Literal["default", "gaussian", "pissa", "pissa_niter_4", "olora"] = "default"
    """How A and B start. PiSSA and OLoRA start from the base's own directions; the saved file is plain LoRA."""
    plus_ratio: float = Field(default=1.0, ge=1, le=64)
    """LoRA+ (Hayou et al. 2024, arXiv:2402.12354): learning rate of B over that of A. 1 switches it off."""


class ContextSettings(Section):
    """How an adapter follows a context track, a melody or beats (datasets made with `--pair`, `--melody`, `--beat`)."""

    way: Literal["added", "prefix"] = "added"
    """added: to the decoder's input at each step. prefix: entries before the first step, each for `stride_frames`."""
    stride_frames: int = Field(default=10, ge=1, le=1024)
    """With `way` prefix: frames that become one entry. Fewer cost more: an entry is as long to read as a step."""
    size: int = Field(default=64, ge=4, le=1024)
    """Width of the small vector that a frame becomes first."""
    lookahead_sec: float = Field(default=1.28, ge=0, le=10)
    """How far ahead in it each step reads: it is a recording, so what comes next may be known."""
    degraded_share: float = Field(default=0.5, ge=0, le=1)
    """Share of clips that get a degraded version of the context track (noise, low-pass, gain, a stem left out), so that
    what separation leaks is no cue."""

    history_dropout: float = Field(default=0.8, ge=0, le=1)
    """Share of clips of which some of the past is hidden from the model, so that it follows its context instead of
    going on with what it has played."""

    def conflicts(self) -> Iterator[str]:
        """A prefix's stride without a prefix."""
        if self.way == "added" and self.stride_frames != type(self).model_fields["stride_frames"].default:
            yield (
                f"context.stride_frames ({self.stride_frames}) is for a prefix, but context.way is added: each step "
                "reads its own frames. Give context.way prefix, or leave context.stride_frames out."
            )


class OptimSettings(Section):
    """The optimizer and its schedule."""

    name: Literal["adamw", "adamw8bit", "paged_adamw8bit", "prodigy"] = "adamw"
    """adamw; 8-bit and paged 8-bit from bitsandbytes; prodigy finds its own step size (leave lr out for it)."""
    lr: float | None = Field(default=None, gt=0, le=10)
    """Peak learning rate. Left out: 2e-4, or 1 for prodigy."""
    betas: tuple[DecayRate, DecayRate] = (0.9, 0.99)
    """Adam's decay rates."""
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    """Decoupled weight decay."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after warm-up."""
    warmup_steps: int = Field(default=10, ge=0)
    """Steps over which the learning rate rises from 0; never more than a fifth of the run."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients are clipped to this norm; 0 means never."""


class EvalSettings(Section):
    """Held-out loss while training."""

    every_steps: int = Field(default=50, ge=0)
    """Steps between evaluations on the validation split; 0 means only at the end."""
    patience: int = Field(default=0, ge=0)
    """Stop after this many evaluations without a better one; 0 means never."""
    max_clips: int = Field(default=64, ge=1)
    """At most this many validation clips, the same ones each time."""

    def conflicts(self) -> Iterator[str]:
        """Patience with nothing to wait for."""
        if self.patience and not self.every_steps:
            yield (
                f"eval.patience ({self.patience}) counts evaluations, but eval.every_steps 0 has none before the end. "
                "Give eval.every_steps, or leave eval.patience at 0."
            )


class PreviewSettings(Section):
    """Short pieces made while training, from fixed prompts and seeds, starting with the untuned base."""

    every_steps: int = Field(default=200, ge=0)
    """Steps between previews; 0 means none at all."""
    prompts: list[str] = Field(default_factory=list, max_length=64)
    """What to play. Empty: captions of the dataset, with the trigger."""
    duration_sec: float = Field(default=8.0, gt=0, le=300)
    """Length of each preview."""
    seed: int = Field(default=0, ge=0)
    """Seed of each preview, the same every time."""
    guidance: float = Field(default=3.0, ge=1, le=20)
    """Classifier-free guidance scale."""

    def conflicts(self) -> Iterator[str]:
        """Prompts that nobody plays."""
        if self.prompts and not self.every_steps:
            yield "preview.prompts say what to play, but preview.every_steps 0 means no previews. Leave one out."


class CheckpointSettings(Section):
    """What is kept so that a run can go on after a stop."""

    every_steps: int = Field(default=100, ge=0)
    """Steps between checkpoints; one is always written at the end and on Ctrl-C. 0 means only then."""
    keep: int = Field(default=2, ge=1)
    """Newest checkpoints kept, beside the best one."""
    places: int = Field(default=6, ge=0, le=100)
    """At so many places spread over the run the weights alone are kept, for `woodshed evaluate` to choose from: six of
    them take as much room as two checkpoints."""
    final: Literal["best", "last"] = "best"
    """Which one becomes the adapter: the lowest held-out loss, or the last. Without a validation split, the last."""


class TrainSettings(Section):
    """All settings of `woodshed train`."""

    base: str | None = None
    """The model to adapt: a hub id, a folder with the same files, or `debug`. Left out: the one the dataset was
    prepared for. Another will do when codec and text encoder are the same (a larger size, for example)."""
    revision: str | None = None
    """A fixed commit or tag of a base on the hub."""
    pattern: PatternName | None = None
    """Move the model to another codebook pattern: parallel, partial_delay, delay, coarse_first, partial_flattening or
    flattening (docs/patterns.md: steps, memory, quality). Left out: the base's own."""
    steps: int = Field(default=0, ge=0)
    """Optimizer steps. 0 means `epochs` decides."""
    epochs: float = Field(default=4.0, gt=0)
    """Passes over the training clips, when steps is 0."""
    batch_size: int = Field(default=2, ge=1)
    """Clips of full length (`max_clip_sec`) in memory at once, per process; of shorter ones as many more as fit."""
    accumulation: int = Field(default=4, ge=1)
    """Micro-batches per optimizer step: the gradient is that of batch_size * accumulation clips at once."""
    max_clip_sec: float = Field(default=30.0, ge=0.1)
    """Longer clips are cropped at a random place each time they come up."""
    condition_dropout: float = Field(default=0.1, ge=0, le=1)
    """Share of clips trained without their caption, so that guidance keeps working. Where a melody or another track is
    followed too, this share loses both, as many the caption alone, and as many the other alone."""
    own_sound_share: float = Field(default=0.5, ge=0, le=1)
    """For a base that follows styles (Magenta RealTime): share of captioned clips that are trained with the style of
    their own sound in the place of their caption's. 0: captions only; 1: the sound only, and words are not learnt."""
    prior_share: float | None = Field(default=None, ge=0, lt=1)
    """Prior preservation: this share of clips is trained without the trigger, with the base's own predictions as the
    target, and so is what `condition_dropout` takes the caption from. The new style then comes when the trigger is
    said; other prompts stay closer to what they were. Costs more steps, and one more forward pass of those clips. Left
    out: 0.5 for a dataset with a trigger and a base that follows words alone, else 0."""
    prior_pieces: int = Field(default=64, ge=0, le=1024)
    """Two thirds of the clips of `prior_share` are pieces that the base plays before training, so many of them: other
    music of many kinds, and the dataset's captions without the trigger. 0: all are clips of the dataset."""
    prior_prompts: list[Words] = Field(default_factory=list, max_length=64)
    """What these pieces are played for, in turn, in the words you would ask for them. Empty: prompts that come with
    Woodshed."""
    prior_sec: float = Field(default=10.0, gt=0)
    """Length of such a piece; never more than `max_clip_sec`."""
    prior_guidance: float = Field(default=1.0, ge=1, le=20)
    """With `prior_share`: compare base and adapter as they are sampled with guidance at this scale, which makes every
    difference that much larger. 3 keeps other prompts nearly as they were, and the trigger then wants a strength of 1.2
    to 1.5 and some more steps; it costs a forward pass of the base. 1: by their plain predictions."""
    trigger_alone: float = Field(default=0.3, ge=0, le=1)
    """Share of the captions that are replaced by the trigger alone, so that it is enough to say it."""
    trigger_rows: int = Field(default=4, ge=0, le=64)
    """So many rows of the text projection's update begin by telling the trigger from other words; 0: all at random."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Arithmetic of the model. auto: bf16 where the GPU or the CPU has it; else fp16 with loss scaling on a GPU,
    fp32 on a CPU."""
    base_weights: Literal["auto", "fp32", "bf16", "fp16", "int8", "nf4"] = "auto"
    """How the frozen base is held. auto: as `precision`. int8 and nf4 (bitsandbytes) save memory and cost speed."""
    checkpointing: bool = True
    """Recompute activations in the backward pass instead of keeping them: far less memory, 25 to 45 % slower."""
    checkpointed_layers: int = Field(default=0, ge=0)
    """With `checkpointing`: only so many layers are recomputed; 0 means all. Fewer is faster and needs more memory."""
    partly_recomputed_layers: int = Field(default=0, ge=0)
    """Of the layers that are not recomputed whole, so many make norms and activation again in the backward pass: a
    third less memory for a few per cent of the time."""
    shard_base: bool = False
    """Spread the frozen base over all processes of `accelerate launch` (FSDP), so that each card holds its share of
    every layer; the adapter stays whole on each. For a base that one card does not hold. No previews are made then."""
    memory: str | None = None
    """How much memory training may take: 6gb, 10gb …, or auto for what is free. Then base_weights (when auto),
    checkpointing, the micro-batch and, if need be, the optimizer are chosen to fit, at the same total batch."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Keep a running average of the adapter with this decay and save that; 0 switches it off."""
    lora: LoraSettings = LoraSettings()
    """The adapter."""
    context: ContextSettings = ContextSettings()
    """Following a context track, a melody or beats."""
    optim: OptimSettings = OptimSettings()
    """The optimizer."""
    eval: EvalSettings = EvalSettings()
    """Held-out loss."""
    preview: PreviewSettings = PreviewSettings()
    """Previews."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """Checkpoints."""
    evaluate: bool | None = None
    """Judge the adapter at the end (`woodshed evaluate`): style, forgetting, copying, which checkpoint and strength.
    Left out: where that costs under a tenth of the run."""
    loggers: list[Literal["tensorboard", "wandb", "trackio"]] = Field(default_factory=lambda: ["tensorboard"])
    """Where curves go besides log.jsonl. wandb and trackio must be installed; nothing is sent unless named here."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    seed: int = Field(default=0, ge=0)
    """Decides everything random."""

    def conflicts(self) -> Iterator[str]:
        """What is asked for and switched off at once, and what excludes each other."""
        if self.checkpointed_layers and not self.checkpointing:
            yield (
                f"checkpointed_layers ({self.checkpointed_layers}) says how many layers are recomputed, but "
                "checkpointing is off. Switch it on, or leave checkpointed_layers out."
            )
        if self.prior_prompts and self.prior_share == 0:
            yield (
                "prior_prompts say what should stay as it is, but prior_share is 0: nothing would be held on to. Leave "
                "one of them out."
            )
        if self.optim.name == "prodigy" and self.lora.plus_ratio != 1:
            yield (
                f"optim.name prodigy finds one step size for all weights, lora.plus_ratio {self.lora.plus_ratio:g} "
                "wants another one for B. Use one of the two."
            )
        if self.lora.init in ("pissa", "pissa_niter_4", "olora") and self.base_weights in ("int8", "nf4"):
            yield (
                f"lora.init {self.lora.init} changes the base's weights, which base_weights {self.base_weights} cannot "
                "take. Set base_weights to bf16, fp16 or fp32, or lora.init to default."
            )
        if self.base_weights in ("bf16", "fp16") and self.precision not in ("auto", self.base_weights):
            yield (
                f"base_weights {self.base_weights} compute in {self.base_weights}, not in precision {self.precision}. "
                "Leave one of them at auto."
            )
        if self.device == "cpu" and self.precision == "fp16":
            yield "precision fp16 needs a CUDA GPU, and device is cpu. On a CPU use fp32 or bf16."
        if self.device == "cpu" and self.optim.name == "paged_adamw8bit":
            yield "optim.name paged_adamw8bit moves its state off a GPU, and device is cpu. Use adamw8bit or adamw."
