"""Mimi (Défossez et al. 2024, arXiv:2410.00037): 24 kHz at 12.5 frames per second, the first codebook semantic.

Causal throughout: convolutions that look back, and transformers that look back over a window. Streaming carries the
transformer's keys and values, so that what was heard once need not be computed again; nothing to the right is awaited.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_prep.codec import port
from data_prep.codec.conv_reach import decoder_reach_frames
from data_prep.codec.port import StreamingDecoder
from data_prep.codec.source import CodecSource
from data_prep.codec.spec import CodecSpec
from data_prep.codec.transformers_codec import TransformersCodec, load_model, streams_of, to_length, to_whole_frames


class MimiCodec(TransformersCodec):
    """Mimi behind the port."""

    @property
    def can_stream(self) -> bool:
        """Always: it is causal."""
        return True

    def encode_batch(self, audio: Float[Tensor, "B c N"]) -> Int[Tensor, "B k T"]:
        """Codes of clips of one length."""
        return self.model.encode(audio, return_dict=True).audio_codes

    def encode_long(self, audio: Float[Tensor, "B c N"]) -> Int[Tensor, "B k T"]:
        """Codes of a long piece in stretches that hand on what the encoder remembers."""
        audio = to_whole_frames(audio, self.hop_samples)
        size = max(1, self.spec.frames_in(port.STRETCH_SEC)) * self.hop_samples
        parts, memory = [], {}
        for start in range(0, audio.shape[2], size):
            part = audio[:, :, start : start + size].to(self.device)
            made = self.model.encode(part, use_streaming=True, return_dict=True, **memory)
            memory = {"padding_cache": made.padding_cache, "encoder_past_key_values": made.encoder_past_key_values}
            parts.append(made.audio_codes.to("cpu"))
        return torch.cat(parts, dim=2)

    def decode_batch(self, codes: Int[Tensor, "B k T"]) -> Float[Tensor, "B c N"]:
        """Audio of the codes."""
        return to_length(self.model.decode(codes, return_dict=True).audio_values, codes.shape[2] * self.hop_samples)

    def stream(self) -> StreamingDecoder:
        """A decoder without latency."""
        return MimiStream(self)


class MimiStream(StreamingDecoder):
    """Keeps the last latent frame, the transformer's keys and values, and what the convolutions look back on."""

    def __init__(self, codec: MimiCodec) -> None:
        self.codec = codec
        self.half = codec.model.decoder
        self.reach = decoder_reach_frames(self.half.decoder_seanet, causal=True)
        self.latent: Tensor | None = None  # [S, D, 1]
        self.hidden: Tensor | None = None  # [S, D, reach], at the transformer's rate
        self.cache: Any = None

    @property
    def latency_frames(self) -> int:
        """None is awaited."""
        return 0

    @torch.inference_mode()
    def push(self, codes: Int[Tensor, "K n"] | Int[np.ndarray, "K n"], *, last: bool = False) -> Float[Tensor, "C N"]:
        """Take more frames, give all of their audio (on the CPU)."""
        tokens = torch.as_tensor(codes).to(self.codec.device, torch.long)
        n_frames, streams = tokens.shape[1], self.codec.streams
        if n_frames == 0:
            return torch.zeros(self.codec.channels, 0)
        per_stream = tokens.reshape(-1, streams, n_frames).transpose(0, 1)  # [S, k, n]
        hidden = self._transform(self.codec.model.quantizer.decode(per_stream))
        seen = hidden if self.hidden is None else torch.cat([self.hidden, hidden], dim=2)
        audio = self.half.decoder_seanet(seen)
        self.hidden = seen[:, :, -self.reach :]
        return audio[:, :, -n_frames * self.codec.hop_samples :].flatten(0, 1).to("cpu")

    def _transform(self, latents: Float[Tensor, "S D n"]) -> Float[Tensor, "S D m"]:
        """Up to the transformer's rate, and through it."""
        if self.half.upsample is not None:
            known = latents if self.latent is None else torch.cat([self.latent, latents], dim=2)
            wider = self.half.upsample(known)
            self.latent = latents[:, :, -1:]
            latents = wider[:, :, -(wider.shape[2] // known.shape[2]) * latents.shape[2] :]
        made = self.half.decoder_transformer(latents.transpose(1, 2), past_key_values=self.cache, use_cache=True)
        self.cache = made.past_key_values
        return made.last_hidden_state.transpose(1, 2)


def load(source: CodecSource, device: str | torch.device = "cpu") -> MimiCodec:
    """Load Mimi's weights.

    Raises:
        UserError: the weights are incomplete.
    """
    from transformers import MimiConfig, MimiModel

    config: Any = MimiConfig.from_dict(dict(source.config))
    streams = streams_of(source, config.audio_channels)
    spec = CodecSpec(
        sample_rate_hz=config.sampling_rate,
        hop_samples=round(config.sampling_rate / config.frame_rate),
        channels=config.audio_channels * streams,
        n_codebooks=config.num_quantizers * streams,
        card=config.codebook_size,
    )
    model, name = load_model(MimiModel, config, source, device)
    return MimiCodec(model, spec, name, streams=streams)
