"""A decoder that was tuned to someone's sounds, as a file: which codec it belongs to, its weights, nothing that runs.

Encoder and quantiser are not in it: tokens, datasets and adapters made with the codec stay valid. One safetensors file
whose metadata names the codec by fingerprint. It holds the whole decoder, or low-rank changes (`low_rank_decoder`); the
latter name the decoder that they change.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from configs.errors import UserError
from data_prep.codec.low_rank_decoder import is_low_rank, whole_of
from data_prep.codec.port import Codec
from data_prep.fingerprint import fingerprint
from data_prep.safe_write import written_beside

FORMAT = "woodshed-decoder-1"
PARTS = ("acoustic_decoder", "decoder")


def decoder_of(codec: Codec) -> nn.Module:
    """The part of a codec that learns: from the quantised latents to audio.

    Raises:
        UserError: this kind of codec has no such part here.
    """
    model = getattr(codec, "model", None)
    part = next((getattr(model, name) for name in PARTS if hasattr(model, name)), None)
    if not isinstance(part, nn.Module):
        raise UserError("The decoder of this codec cannot be tuned.", fix="Use an EnCodec, DAC, Mimi or X-Codec.")
    return part


@contextmanager
def decoder_in_place(codec: Codec, decoder: nn.Module) -> Iterator[None]:
    """Let the codec decode with another decoder of the same kind, inside the block."""
    own, model = decoder_of(codec), getattr(codec, "model", None)
    name = next(name for name in PARTS if getattr(model, name, None) is own)
    setattr(model, name, decoder)
    try:
        yield
    finally:
        setattr(model, name, own)


def save_decoder(
    path: Path, codec: Codec, tensors: Mapping[str, Tensor], told: Mapping[str, str], *, old: Mapping[str, Tensor]
) -> None:
    """Write a decoder for this codec.

    `tensors` is the whole or low-rank changes of the decoder `old`; `told` is what else the file shall say of itself.
    """
    from safetensors.torch import save_file

    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {**told, "format": FORMAT, "codec": codec.fingerprint, "hop_samples": str(codec.hop_samples)}
    metadata |= {"changes": fingerprint(old)} if is_low_rank(tensors) else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as part:
        save_file(plain, part, metadata)


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
    tensors = _whole(tensors, own, told, path)
    wrong = [name for name in own if name not in tensors or tensors[name].shape != own[name].shape]
    wrong += [name for name in tensors if name not in own or not torch.isfinite(tensors[name].float()).all()]
    if wrong:
        raise _misfit(path, ", ".join(sorted(wrong)[:3]))
    decoder.load_state_dict(tensors)
    return told


def _whole(
    tensors: dict[str, Tensor], own: Mapping[str, Tensor], told: Mapping[str, str], path: Path
) -> dict[str, Tensor]:
    """All weights of a decoder whose file may hold only what it changes."""
    if not is_low_rank(tensors):
        return tensors
    if told.get("changes") != fingerprint(own):
        raise UserError(
            "This decoder changes the codec's own one, and another decoder is in its place.",
            where=str(path),
            fix="Load the codec anew, or tune a whole decoder (without --rank).",
        )
    try:
        device = next(iter(own.values())).device
        return whole_of(own, {name: value.to(device) for name, value in tensors.items()})
    except (KeyError, ValueError) as error:
        raise _misfit(path, str(error)) from error


def _misfit(path: Path, what: str) -> UserError:
    return UserError(
        "The tuned decoder's weights do not fit this codec.",
        where=f"{path}: {what} …",
        fix="Copy the file again, or tune a new one.",
    )
