"""The Descript Audio Codec (Kumar et al. 2023, arXiv:2306.06546) at 16, 24 and 44.1 kHz.

Convolutions only, so clips of any length are encoded and decoded in stretches exactly. It is mono; stereo goes through
it channel by channel, as its authors do. A clip is filled with silence to the end of its last frame.
"""

from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_prep.codec.conv_reach import decoder_reach_frames, encoder_reach_samples
from data_prep.codec.source import CodecSource
from data_prep.codec.spec import CodecSpec
from data_prep.codec.transformers_codec import TransformersCodec, load_model, streams_of, to_length, to_whole_frames


class DacCodec(TransformersCodec):
    """DAC behind the port."""

    @cached_property
    def context_frames(self) -> int:
        """Counted from the decoder's convolutions."""
        return decoder_reach_frames(self.model.decoder)

    @cached_property
    def encode_context_frames(self) -> int:
        """Counted from the encoder's convolutions."""
        return -(-encoder_reach_samples(self.model.encoder) // self.hop_samples)

    def encode_batch(self, audio: Float[Tensor, "B c N"]) -> Int[Tensor, "B k T"]:
        """Codes of clips of one length."""
        return self.model.encode(to_whole_frames(audio, self.hop_samples)).audio_codes

    def decode_batch(self, codes: Int[Tensor, "B k T"]) -> Float[Tensor, "B c N"]:
        """Audio of the codes."""
        audio = self.model.decode(audio_codes=codes).audio_values[:, None]
        return to_length(audio, codes.shape[2] * self.hop_samples)


def load(source: CodecSource, device: str | torch.device = "cpu") -> DacCodec:
    """Load DAC's weights.

    Raises:
        UserError: the weights are incomplete.
    """
    from transformers import DacConfig, DacModel

    config: Any = DacConfig.from_dict(dict(source.config))
    streams = streams_of(source, 1)
    spec = CodecSpec(
        sample_rate_hz=config.sampling_rate,
        hop_samples=config.hop_length,
        channels=streams,
        n_codebooks=config.n_codebooks * streams,
        card=config.codebook_size,
    )
    model, name = load_model(DacModel, config, source, device)
    return DacCodec(model, spec, name, streams=streams)
