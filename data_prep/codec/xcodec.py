"""X-Codec (Ye et al. 2024, arXiv:2408.17175): DAC's convolutions beside a semantic model (HuBERT) that joins encoding.

HuBERT sees the whole clip at once, so a clip's codes depend on all of it: a clip longer than `port.WHOLE_SEC` is
encoded in stretches with some seconds of context, which is near to one go and not equal. Decoding is exact.
"""

from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_prep.codec.conv_reach import decoder_reach_frames
from data_prep.codec.source import CodecSource
from data_prep.codec.spec import CodecSpec
from data_prep.codec.transformers_codec import TransformersCodec, load_model, streams_of, to_length, to_whole_frames


class XcodecCodec(TransformersCodec):
    """X-Codec behind the port."""

    @cached_property
    def context_frames(self) -> int:
        """Counted from the decoder's convolutions."""
        return decoder_reach_frames(self.model.acoustic_decoder)

    def encode_batch(self, audio: Float[Tensor, "B c N"]) -> Int[Tensor, "B k T"]:
        """Codes of clips of one length."""
        return self.model.encode(to_whole_frames(audio, self.hop_samples), return_dict=True).audio_codes

    def decode_batch(self, codes: Int[Tensor, "B k T"]) -> Float[Tensor, "B c N"]:
        """Audio of the codes."""
        audio = self.model.decode(codes, return_dict=True).audio_values
        return to_length(audio, codes.shape[2] * self.hop_samples)


def load(source: CodecSource, device: str | torch.device = "cpu") -> XcodecCodec:
    """Load X-Codec's weights, its semantic model among them.

    Raises:
        UserError: the weights are incomplete.
    """
    from transformers import XcodecConfig, XcodecModel

    config: Any = XcodecConfig.from_dict(dict(source.config))
    streams = streams_of(source, 1)
    spec = CodecSpec(
        sample_rate_hz=config.sample_rate,
        hop_samples=config.hop_length,
        channels=streams,
        n_codebooks=config.num_quantizers * streams,
        card=config.codebook_size,
    )
    model, name = load_model(XcodecModel, config, source, device)
    return XcodecCodec(model, spec, name, streams=streams)
