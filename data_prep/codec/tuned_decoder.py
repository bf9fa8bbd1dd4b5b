"""A decoder that was tuned to someone's sounds, as a file: which codec it belongs to, its weights, nothing that runs.

Encoder and quantiser are not in it: tokens, datasets and adapters made with the codec stay valid. One safetensors file
whose metadata names the codec by kind and fingerprint.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from configs.errors import UserError
from data_prep.codec.port import Codec
from data_prep.safe_write import written_beside

FORMAT = "woodshed-decoder-1"


def decoder_of(codec: Codec) -> nn.Module:
    """The part of a codec that learns: from the quantised latents to audio.

    Raises:
        UserError: this kind of codec has no such part here.
    """
    model = getattr(codec, "model", None)
    part = next((getattr(model, name) for name in ("acoustic_decoder", "decoder") if hasattr(model, name)), None)
    if not isinstance(part, nn.Module):
        raise UserError("The decoder of this codec cannot be tuned.", fix="Use an EnCodec, DAC, Mimi or X-Codec.")
    return part


def save_decoder(path: Path, codec: Codec, told: Mapping[str, str]) -> None:
    """Write the codec's decoder as it is now; `told` is what else the file shall say of itself."""
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous() for name, value in decoder_of(codec).state_dict().items()}
    metadata = {**told, "format": FORMAT, "codec": codec.fingerprint, "hop_samples": str(codec.hop_samples)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as part:
        save_file(tensors, part, metadata)


def read_decoder(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a decoder file.

    Raises:
        UserError: it is no decoder file, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            told = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            "The tuned decoder cannot be read.",
            where=f"{path} ({error})",
            fix="Give the decoder.safetensors that `woodshed codec tune` wrote.",
        ) from error
    if told.get("format") != FORMAT:
        raise UserError(
            "This file is no tuned decoder.",
            where=str(path),
            fix="Give the decoder.safetensors that `woodshed codec tune` wrote.",
        )
    return tensors, told


def use_decoder(codec: Codec, path: Path) -> dict[str, str]:
    """Give a codec the decoder of a file; returns what the file says of itself. The fingerprint stays: it names tokens.

    Raises:
        UserError: it was tuned for another codec, or its weights do not fit or are no numbers.
    """
    tensors, told = read_decoder(path)
    decoder = decoder_of(codec)
    if told.get("codec") != codec.fingerprint:
        raise UserError(
            f"This decoder was tuned for another codec ({told.get('codec')}, this one is {codec.fingerprint}).",
            where=str(path),
            fix="Use it with the base whose codec it was tuned for, or tune one for this base.",
        )
    own = decoder.state_dict()
    wrong = [name for name in own if name not in tensors or tensors[name].shape != own[name].shape]
    wrong += [name for name in tensors if name not in own or not torch.isfinite(tensors[name].float()).all()]
    if wrong:
        raise UserError(
            "The tuned decoder's weights do not fit this codec.",
            where=f"{path}: {', '.join(sorted(wrong)[:3])} …",
            fix="Copy the file again, or tune a new one.",
        )
    decoder.load_state_dict(tensors)
    return told
