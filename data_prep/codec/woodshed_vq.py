"""Codecs that `woodshed codec train` made and EncodecModel cannot hold: hierarchical and cosine quantisers.

Encoder, decoder and what each code adds to the latents are an EncodecModel's, so decoding and streaming are EnCodec's.
Only the search is other: a codebook may code the mean of several frames, which then all carry its code, and it may
compare directions behind a projection of its own. A folder holds config.json (`model_type` "woodshed_vq", `encodec`:
an EncodecConfig, `strides`: frames per code of each codebook, `directions`: dimensions of the directions, or null) and
model.safetensors (EncodecModel's names; `search.<k>.weight`, `.bias`, `.entries` where there are directions).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor, nn

from configs.errors import UserError
from data_prep.codec import port
from data_prep.codec.encodec import EncodecCodec
from data_prep.codec.encodec_encoder import latents_in_order
from data_prep.codec.frame_groups import pooled, spread
from data_prep.codec.source import CodecSource, weights_fingerprint
from data_prep.codec.spec import CodecSpec
from data_prep.codec.transformers_codec import load_model, streams_of

KIND = "woodshed_vq"


class Search(nn.Module):
    """Latents to codes, codebook after codebook, each on what the ones before left."""

    def __init__(self, entries: Float[Tensor, "K card D"], strides: tuple[int, ...], own: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.entries = nn.Buffer(entries, persistent=False)
        self.strides = strides
        self.own = nn.ParameterDict(
            {name.replace(".", "_"): nn.Parameter(value, requires_grad=False) for name, value in own.items()}
        )

    def forward(self, latents: Float[Tensor, "B D T"]) -> Int[Tensor, "B K T"]:
        """The nearest code of every codebook and frame."""
        rest, codes = latents.transpose(1, 2), []  # [B, T, D]
        for number, (entries, stride) in enumerate(zip(self.entries, self.strides, strict=True)):
            index = self._nearest(number, pooled(rest, stride))  # [B, t]
            index = spread(index[..., None], stride, rest.shape[1])[..., 0]
            rest = rest - F.embedding(index, entries)
            codes.append(index)
        return torch.stack(codes, dim=1)

    def _nearest(self, number: int, seen: Float[Tensor, "B t D"]) -> Int[Tensor, "B t"]:
        if self.own:
            directions = F.linear(seen, self.own[f"{number}_weight"], self.own[f"{number}_bias"])
            return (F.normalize(directions, dim=-1) @ self.own[f"{number}_entries"].T).argmax(dim=-1)
        entries = self.entries[number]
        return (2 * seen @ entries.T - entries.pow(2).sum(dim=1)).argmax(dim=-1)


class VqCodec(EncodecCodec):
    """EnCodec with a search of its own."""

    search: Search

    def bitrate_bps(self, n_codebooks: int | None = None) -> float:
        """Bits per second of the first codebooks; a code that several frames share is stored once."""
        count = self.n_codebooks if n_codebooks is None else n_codebooks
        codes = sum(1 / stride for stride in self.search.strides[: count // self.streams]) * self.streams
        return codes * self.spec.bits_per_code * self.spec.frame_rate

    def encode_batch(self, audio: Float[Tensor, "B c N"]) -> Int[Tensor, "B k T"]:
        """Codes of clips of one length."""
        return self.search(self.model.encoder(audio))

    def encode_long(self, audio: Float[Tensor, "B c N"]) -> Int[Tensor, "B k T"]:
        """Codes of a long piece: latents in stretches, then the search in stretches that cut no group of frames."""
        stretch = max(1, self.spec.frames_in(port.STRETCH_SEC))
        parts = latents_in_order(self.model, audio, self.hop_samples, stretch, self.device)
        latents = torch.cat([part.to("cpu") for part in parts], dim=2)
        whole_groups = -(-stretch // max(self.search.strides)) * max(self.search.strides)
        return torch.cat([self.search(part.to(self.device)).to("cpu") for part in latents.split(whole_groups, 2)], 2)

    def to(self, device: str | torch.device) -> "VqCodec":
        """Move the weights."""
        self.search.to(device)
        super().to(device)
        return self


def load(source: CodecSource, device: str | torch.device = "cpu") -> VqCodec:
    """Load a codec that `woodshed codec train` wrote.

    Raises:
        UserError: the configuration or the weights do not fit together.
    """
    from transformers import EncodecModel

    config, strides = _configuration(source)
    every = source.tensors()
    own = {name.removeprefix("search."): value for name, value in every.items() if name.startswith("search.")}
    model_part = {name: value for name, value in every.items() if not name.startswith("search.")}
    _check(source, config, strides, own)
    streams = streams_of(source, 1)
    spec = CodecSpec(
        sample_rate_hz=config.sampling_rate,
        hop_samples=config.hop_length,
        channels=streams,
        n_codebooks=config.num_quantizers * streams,
        card=config.codebook_size,
    )
    model, _ = load_model(EncodecModel, config, replace(source, tensors=lambda: model_part), device)
    codec = VqCodec(model, spec, weights_fingerprint(every), streams=streams)
    entries = torch.stack([layer.codebook.embed for layer in model.quantizer.layers])
    codec.search = Search(entries, strides, {name: value.float() for name, value in own.items()}).to(device)
    return codec


def _configuration(source: CodecSource) -> tuple[Any, tuple[Any, ...]]:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import EncodecConfig

    said, strides = source.config.get("encodec"), source.config.get("strides")
    if not isinstance(said, Mapping) or not isinstance(strides, list):
        raise _misfit(source)
    try:
        config: Any = EncodecConfig.from_dict(dict(said))
        whole = config.hop_length > 0 and config.num_quantizers > 0  # both are worked out from the others
    except (StrictDataclassError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise _misfit(source) from error
    if not whole:
        raise _misfit(source)
    return config, tuple(strides)


def _check(source: CodecSource, config: Any, strides: tuple[Any, ...], own: Mapping[str, Tensor]) -> None:
    K, dim, width = config.num_quantizers, source.config.get("directions"), config.hidden_size
    wanted: dict[str, tuple[int, ...]] = {}
    if isinstance(dim, int):
        shapes = {"weight": (dim, width), "bias": (dim,), "entries": (config.codebook_size, dim)}
        wanted = {f"{number}.{name}": shape for number in range(K) for name, shape in shapes.items()}
    fits = len(strides) == K and all(isinstance(stride, int) and 1 <= stride <= 64 for stride in strides)
    if not fits or {name: tuple(value.shape) for name, value in own.items()} != wanted:
        raise _misfit(source)


def _misfit(source: CodecSource) -> UserError:
    return UserError(
        "This codec's configuration and weights do not fit together.",
        where=str(source.where),
        fix="Copy the folder again, or train the codec again with `woodshed codec train`.",
    )
