"""The trained codec as files: an EncodecModel where its search is EnCodec's, else the form of `woodshed_vq`.

A shared projection is linear, so it is folded into the convolutions beside it: the encoder's last and the decoder's
first. Reflection padding keeps a constant constant, so the folded bias is exact as well. Grouped codebooks are residual
ones that are zero outside their group: a later group's channels are the same for every entry of an earlier one, and so
change no choice.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import EncodecModel

from data_prep.codec import woodshed_vq
from data_prep.safe_write import folder_beside
from finetune.codec_train.model import CodecModel, encodec_config
from finetune.codec_train.settings import CodecSettings


def is_plain_encodec(settings: CodecSettings) -> bool:
    """Whether an EncodecModel gives the same codes."""
    return not settings.cosine and settings.quantiser != "hierarchical"


def save_codec(model: CodecModel, folder: Path) -> None:
    """Write config.json and weights that `codec report`, `prep` and everything behind the codec port read."""
    from safetensors.torch import save_file

    with folder_beside(folder, replace=True) as part:
        if is_plain_encodec(model.settings):
            to_encodec(model).save_pretrained(part)
            return
        encodec, rvq = decoding_model(model), model.quantizer
        config = {
            "model_type": woodshed_vq.KIND,
            "encodec": encodec.config.to_dict(),
            "strides": list(model.settings.strides),
            "directions": model.settings.codebook_dim if model.settings.cosine else None,
        }
        tensors = dict(encodec.state_dict())
        for number, narrow in enumerate(rvq.narrow):
            search = {"weight": narrow.weight, "bias": narrow.bias, "entries": rvq.layers[number].codebook}
            tensors |= {f"search.{number}.{name}": value for name, value in search.items()}
        plain = {name: value.detach().to("cpu", torch.float32, copy=True) for name, value in tensors.items()}
        save_file(plain, part / "model.safetensors", {"format": "pt"})
        (part / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def to_encodec(model: CodecModel) -> EncodecModel:
    """An EncodecModel in fp32 on the CPU, in eval, with the same codes and audio.

    Raises:
        ValueError: EnCodec's search would find other codes.
    """
    if not is_plain_encodec(model.settings):
        raise ValueError("an EncodecModel has no codebooks with a search of their own")
    return decoding_model(model)


@torch.no_grad()
def decoding_model(model: CodecModel) -> EncodecModel:
    """An EncodecModel that makes the same latents of audio and the same audio of codes; its search may be another."""
    rvq: Any = model.quantizer
    encoder: Any = model.encoder
    decoder: Any = model.decoder
    exported = EncodecModel(encodec_config(model.settings, model.settings.latent_dim)).eval()
    tensors = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    tensors |= {f"decoder.{name}": value for name, value in decoder.state_dict().items()}
    if isinstance(rvq.project_in, nn.Linear):
        last = len(encoder.layers) - 1
        tensors |= _conv(f"encoder.layers.{last}.conv", *_after(encoder.layers[last].conv, rvq.project_in))
        tensors |= _conv("decoder.layers.0.conv", *_before(decoder.layers[0].conv, rvq.project_out))
    for number, entries in enumerate(rvq.entries()):
        name = f"quantizer.layers.{number}.codebook"
        tensors |= {f"{name}.embed": entries, f"{name}.embed_avg": entries}
        tensors |= {f"{name}.cluster_size": torch.ones(model.settings.card), f"{name}.inited": torch.ones(1)}
    exported.load_state_dict({name: value.detach().cpu().float() for name, value in tensors.items()})
    return exported


@torch.no_grad()
def from_encodec(exported: EncodecModel, model: CodecModel) -> CodecModel:
    """Fill a codec without projections with an exported one, so that it goes on learning.

    Raises:
        ValueError: the codec to fill has a projection, or is not residual.
    """
    rvq: Any = model.quantizer
    if model.settings.codebook_dim != model.settings.width or model.settings.cosine:
        raise ValueError("an exported codec has no projections: it needs a size whose codebooks have its width")
    if model.settings.quantiser != "residual":
        raise ValueError("only a residual quantiser can begin with an exported codec")
    parts: Any = exported
    model.encoder.load_state_dict(parts.encoder.state_dict())
    model.decoder.load_state_dict(parts.decoder.state_dict())
    for layer, held in zip(rvq.layers, parts.quantizer.layers, strict=True):
        codebook, embed = layer._codebook, held.codebook.embed[None]  # [1, card, D]
        size = model.settings
        mean_uses = size.batch_size * size.crop_sec * size.frame_rate_hz / size.card
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
