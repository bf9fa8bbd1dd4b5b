"""The two sizes of the starter: one that a CPU trains to a lower figure, one for a GPU."""

from dataclasses import dataclass

from finetune.codec_train.settings import CodecSettings

FRAME_RATE_HZ = 50
"""Codec frames per second, in both sizes."""


@dataclass(frozen=True)
class LMSize:
    """The language model with its text encoder, and how they learn."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    text_width: int
    text_layers: int
    text_heads: int
    vocabulary: int
    crops_sec: tuple[float, ...]
    """Lengths of crops; a step draws one. Short ones make many beginnings, where only the caption says what comes."""
    batch_frames: int
    """Frames of a batch: as many crops as that makes."""
    lr: float
    steps: int
    condition_dropout: float = 0.1
    context_dropout: float = 0.3
    """Share of clips that hide a random part of what was played before, so that the caption is needed."""
    warmup_steps: int = 100
    text_kv: int = 32


CODEC_SIZES = {
    "cpu": CodecSettings(
        sample_rate_hz=16_000,
        upsampling=(5, 4, 4, 4),
        filters=16,
        width=32,
        codebook_dim=32,
        card=512,
        crop_sec=0.6,
        batch_size=6,
        lr=1e-3,
        steps=20_000,
        quantize_from=1_000,
        adversarial_from=-1,
    ),
    "gpu": CodecSettings(
        sample_rate_hz=32_000,
        upsampling=(8, 5, 4, 4),
        filters=18,
        width=128,
        codebook_dim=32,
        card=1024,
        crop_sec=1.0,
        batch_size=64,
        lr=5e-4,
        steps=60_000,
        quantize_from=2_000,
        adversarial_from=20_000,
    ),
}
LM_SIZES = {
    "cpu": LMSize(
        hidden=192,
        layers=5,
        heads=6,
        ffn=768,
        text_width=96,
        text_layers=2,
        text_heads=3,
        vocabulary=400,
        crops_sec=(2.0, 4.0, 10.0),
        batch_frames=2_400,
        lr=3e-3,
        steps=20_000,
    ),
    "gpu": LMSize(
        hidden=256,
        layers=5,
        heads=8,
        ffn=1024,
        text_width=128,
        text_layers=3,
        text_heads=4,
        vocabulary=600,
        crops_sec=(2.0, 4.0, 10.0),
        batch_frames=32_000,
        lr=1e-3,
        steps=60_000,
        warmup_steps=1_000,
    ),
}
