"""X-Codec 2 (Ye et al. 2025, arXiv:2502.04128): one codebook of 65,536 entries, 50 frames per second at 16 kHz.

Both halves hold transformers that see the whole piece: a piece longer than `port.WHOLE_SEC` goes through in stretches
with some seconds of context, which is near to one go and not equal, and it cannot be streamed. Codes are int32.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_prep.codec.source import CodecSource
from data_prep.codec.spec import CodecSpec
from data_prep.codec.transformers_codec import TransformersCodec, load_model, streams_of, to_length, to_whole_frames


class Xcodec2Codec(TransformersCodec):
    """X-Codec 2 behind the port."""

    def encode_batch(self, audio: Float[Tensor, "B c N"]) -> Int[Tensor, "B k T"]:
        """Codes of clips of one length."""
        whole = to_whole_frames(audio, self.hop_samples)
        return self.model.encode(whole, self._mel(whole), return_dict=True).audio_codes

    def _mel(self, audio: Float[Tensor, "B c N"]) -> Float[Tensor, "B m D"]:
        """What the semantic model reads: two log-mel frames per codec frame.

        The extractor adds one sample before it fills the last frame, so it is given one less.
        """
        from transformers import Xcodec2FeatureExtractor

        extractor: Any = Xcodec2FeatureExtractor(hop_length=self.hop_samples, sampling_rate=self.sample_rate_hz)
        clips = [clip[0, :-1].cpu() for clip in audio]
        made = extractor(clips, sampling_rate=self.sample_rate_hz, return_tensors="pt")
        return made["input_features"].to(self.device)

    def decode_batch(self, codes: Int[Tensor, "B k T"]) -> Float[Tensor, "B c N"]:
        """Audio of the codes."""
        audio = self.model.decode(audio_codes=codes, return_dict=True).audio_values
        return to_length(audio, codes.shape[2] * self.hop_samples)


def load(source: CodecSource, device: str | torch.device = "cpu") -> Xcodec2Codec:
    """Load X-Codec 2's weights, its semantic model among them.

    Raises:
        UserError: the weights are incomplete.
    """
    from transformers import Xcodec2Config, Xcodec2Model

    config: Any = Xcodec2Config.from_dict(dict(source.config))
    streams = streams_of(source, 1)
    spec = CodecSpec(
        sample_rate_hz=config.sampling_rate,
        hop_samples=config.hop_length,
        channels=streams,
        n_codebooks=streams,
        card=math.prod(config.quantization_levels),
    )
    model, name = load_model(Xcodec2Model, config, source, device)
    return Xcodec2Codec(model, spec, name, streams=streams)
