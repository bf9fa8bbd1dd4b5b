"""The trained codec as an EncodecModel and back: the same audio from the same codes, in transformers' own format.

The quantizer's projections are linear, so they are folded into the convolutions beside them: the encoder's last and the
decoder's first. Reflection padding keeps a constant constant, so the folded bias is exact as well.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import EncodecModel

from starter.recipe.codec_model import CodecModel, encodec_config


@torch.no_grad()
def to_encodec(model: CodecModel) -> EncodecModel:
    """An EncodecModel in fp32 on the CPU, in eval."""
    rvq: Any = model.quantizer
    encoder: Any = model.encoder
    decoder: Any = model.decoder
    exported = EncodecModel(encodec_config(model.size, model.size.codebook_dim)).eval()
    tensors = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    tensors |= {f"decoder.{name}": value for name, value in decoder.state_dict().items()}
    if rvq.has_projections:
        last = len(encoder.layers) - 1
        tensors |= _conv(f"encoder.layers.{last}.conv", *_after(encoder.layers[last].conv, rvq.project_in))
        tensors |= _conv("decoder.layers.0.conv", *_before(decoder.layers[0].conv, rvq.project_out))
    for number, layer in enumerate(rvq.layers):
        codebook = layer._codebook
        name = f"quantizer.layers.{number}.codebook"
        tensors[f"{name}.embed"] = codebook.embed[0]
        tensors[f"{name}.embed_avg"] = codebook.embed[0]
        tensors[f"{name}.cluster_size"] = torch.ones(model.size.card)
        tensors[f"{name}.inited"] = torch.ones(1)
    exported.load_state_dict({name: value.detach().cpu().float() for name, value in tensors.items()})
    return exported


@torch.no_grad()
def from_encodec(exported: EncodecModel, model: CodecModel) -> CodecModel:
    """Fill a codec without projections with an exported one, so that it goes on learning."""
    rvq: Any = model.quantizer
    if rvq.has_projections:
        raise ValueError("an exported codec has no projections: it needs a size whose codebooks have its width")
    parts: Any = exported
    model.encoder.load_state_dict(parts.encoder.state_dict())
    model.decoder.load_state_dict(parts.decoder.state_dict())
    for layer, held in zip(rvq.layers, parts.quantizer.layers, strict=True):
        codebook, embed = layer._codebook, held.codebook.embed[None]  # [1, card, D]
        mean_uses = model.size.batch_size * model.size.crop_sec * model.size.frame_rate_hz / model.size.card
        codebook.embed.copy_(embed)
        codebook.cluster_size.fill_(mean_uses)
        codebook.embed_avg.copy_(embed * mean_uses)
        codebook.initted.fill_(True)
    return model


def _after(conv: Any, projection: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight [d, in, k] and bias of projection(conv(x))."""
    weight = torch.einsum("dw,wik->dik", projection.weight, conv.weight)
    return weight, projection.weight @ conv.bias + projection.bias


def _before(conv: Any, projection: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight [out, d, k] and bias of conv(projection(x))."""
    weight = torch.einsum("owk,wd->odk", conv.weight, projection.weight)
    return weight, conv.bias + torch.einsum("owk,w->o", conv.weight, projection.bias)


def _conv(name: str, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """Tensors of a convolution under weight norm: direction and length of each output's filter."""
    length = weight.norm(dim=(1, 2), keepdim=True)
    parts = {"parametrizations.weight.original0": length, "parametrizations.weight.original1": weight, "bias": bias}
    return {f"{name}.{part}": value for part, value in parts.items()}
