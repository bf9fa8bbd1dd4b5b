"""Every tensor of a SpectroStream codec with its shape, by official name: what a random one is written from."""

import torch

from data_prep.codec.spectrostream.networks import Decoder, Encoder
from data_prep.codec.spectrostream.shape import CodecShape, official_name


def codec_shapes(shape: CodecShape) -> dict[str, tuple[int, ...]]:
    """Shapes as official files have them: kernels [time, bins, in, out]."""
    with torch.device("meta"):
        parts = {"encoder": Encoder(shape), "decoder": Decoder(shape)}
    shapes: dict[str, tuple[int, ...]] = {"quantizer/embedding": (shape.levels, shape.card, shape.features)}
    for part, network in parts.items():
        for path, parameter in network.named_parameters():
            name = official_name(f"{part}.{path}")
            shapes[name] = _official(tuple(parameter.shape), "transpose" in name)
    return shapes


def _official(shape: tuple[int, ...], transposed: bool) -> tuple[int, ...]:
    if len(shape) != 4:
        return shape
    a, b, time, bins = shape
    return (time, bins, a, b) if transposed else (time, bins, b, a)
