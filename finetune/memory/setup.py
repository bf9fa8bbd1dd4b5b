"""What decides how much memory a training step takes: the shape of the decoder and the choices of a run.

Plain numbers, read from a configuration without loading a model or importing torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from configs.train import TargetGroup, TrainSettings

Weights = Literal["fp32", "bf16", "fp16", "int8", "nf4"]
Optimizer = Literal["adamw", "adamw8bit", "paged_adamw8bit", "prodigy"]
FRAMES_PER_SEC = 50


@dataclass(frozen=True)
class Shape:
    """A MusicGen decoder and the text projection before it."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    codebooks: int = 4
    channels: int = 1
    card: int = 2048
    text_width: int = 768
    positions: int = 2048

    @property
    def projected(self) -> bool:
        """Whether there is a text projection: the text's width differs from the decoder's."""
        return self.text_width != self.hidden

    @property
    def largest_delay(self) -> int:
        """Steps by which the last codebook lags."""
        return (self.codebooks - 1) // self.channels

    @staticmethod
    def of(config: Mapping[str, Any]) -> "Shape":
        """From a MusicGen config.json. What is absent there has the default of transformers' configurations."""
        decoder, text = config.get("decoder", {}), config.get("text_encoder", {})
        return Shape(
            hidden=decoder.get("hidden_size", 1024),
            layers=decoder.get("num_hidden_layers", 24),
            heads=decoder.get("num_attention_heads", 16),
            ffn=decoder.get("ffn_dim", 4096),
            codebooks=decoder.get("num_codebooks", 4),
            channels=decoder.get("audio_channels", 1),
            card=decoder.get("vocab_size", 2048),
            text_width=text.get("d_model", 512),
            positions=decoder.get("max_position_embeddings", 2048),
        )


@dataclass(frozen=True)
class Setup:
    """One way to run a training step. `frames` and `text_tokens` are those of the longest batch."""

    shape: Shape
    weights: Weights = "bf16"
    arithmetic: Literal["fp32", "bf16", "fp16"] = "bf16"
    checkpointed: int = 0
    batch_size: int = 1
    frames: int = 1500
    text_tokens: int = 32
    rank: int = 16
    targets: tuple[TargetGroup, ...] = ("attention", "ffn", "text_projection")
    optimizer: Optimizer = "adamw"
    ema: bool = False
    prior: bool = False

    @property
    def steps(self) -> int:
        """S: what the decoder reads of a clip."""
        return self.frames + self.shape.largest_delay

    @property
    def bytes_per_value(self) -> int:
        """Of an activation."""
        return 4 if self.arithmetic == "fp32" else 2

    @staticmethod
    def of(
        settings: TrainSettings,
        shape: Shape,
        weights: Weights,
        arithmetic: Literal["fp32", "bf16", "fp16"],
        longest_frames: int,
    ) -> "Setup":
        """A run as its settings say it, with "auto" settled; `longest_frames` is the longest clip as it is heard."""
        return Setup(
            shape,
            weights=weights,
            arithmetic=arithmetic,
            checkpointed=checkpointed_layers(settings, shape.layers),
            batch_size=settings.batch_size,
            frames=longest_frames,
            rank=settings.lora.rank,
            targets=tuple(settings.lora.targets),
            optimizer=settings.optim.name,
            ema=settings.ema_decay > 0,
            prior=settings.prior_share > 0,
        )


def checkpointed_layers(settings: TrainSettings, layers: int) -> int:
    """How many of a decoder's layers are recomputed under these settings."""
    if not settings.checkpointing:
        return 0
    return min(layers, settings.checkpointed_layers or layers)


def adapted(shape: Shape, targets: tuple[TargetGroup, ...]) -> list[tuple[int, int, int]]:
    """(in, out, how many) of the linear layers that these targets reach."""
    D, F = shape.hidden, shape.ffn
    has = roles(targets)
    square = sum(place in ("self", "cross") for place, _ in has)
    found = [(D, D, square * shape.layers)]
    if ("ffn", "") in has:
        found += [(D, F, shape.layers), (F, D, shape.layers)]
    if ("text", "") in has and shape.projected:
        found.append((shape.text_width, D, 1))
    return [entry for entry in found if entry[2]]


def trainable(setup: Setup) -> int:
    """Numbers that learn: A and B of every adapted layer."""
    return sum(count * setup.rank * (n_in + n_out) for n_in, n_out, count in adapted(setup.shape, setup.targets))


def roles(targets: tuple[TargetGroup, ...]) -> set[tuple[str, str]]:
    """(place, projection) of what the targets reach: ("self", "q") …, ("cross", "out"), ("ffn", ""), ("text", "")."""
    return {role for target in targets for role in _roles_of(target)}


def _roles_of(target: TargetGroup) -> set[tuple[str, str]]:
    everywhere, projections = ("self", "cross"), ("q", "k", "v", "out")
    if target in ("ffn", "text_projection"):
        return {("ffn" if target == "ffn" else "text", "")}
    if target in projections:
        return {(place, target) for place in everywhere}
    places = {"self_attention": ("self",), "cross_attention": ("cross",)}.get(target, everywhere)
    return {(place, projection) for place in places for projection in projections}
