"""EnCodec (Défossez et al. 2022, arXiv:2210.13438): MusicGen's at 32 kHz, and the general ones at 24 and 48 kHz.

MusicGen's is not causal and pads by reflection at both ends, so a clip's last frames depend on where it ends: clips are
batched only with clips of the same length and never padded.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from configs.errors import UserError
from data_prep.codec import port
from data_prep.codec.encodec_chunks import EncodecChunks
from data_prep.codec.encodec_encoder import encode_in_order
from data_prep.codec.port import StreamingDecoder
from data_prep.codec.source import CodecSource
from data_prep.codec.spec import CodecSpec
from data_prep.codec.transformers_codec import TransformersCodec, load_model, streams_of


class EncodecCodec(TransformersCodec):
    """EnCodec without chunks and without normalisation."""

    @property
    def can_stream(self) -> bool:
        """Always: convolutions reach a few frames, and the LSTM's state is carried."""
        return True

    def encode_batch(self, audio: Float[Tensor, "B c N"]) -> Int[Tensor, "B k T"]:
        """Codes of clips of one length."""
        return self.model.encode(audio, bandwidth=self.model.config.target_bandwidths[-1]).audio_codes[0]

    def encode_long(self, audio: Float[Tensor, "B c N"]) -> Int[Tensor, "B k T"]:
        """Codes of a long piece in stretches."""
        stretch = max(1, self.spec.frames_in(port.STRETCH_SEC))
        return encode_in_order(self.model, audio, self.hop_samples, stretch, self.device)

    def decode_batch(self, codes: Int[Tensor, "B k T"]) -> Float[Tensor, "B c N"]:
        """Audio of the codes."""
        return self.model.decode(codes[None], [None]).audio_values

    def stream(self) -> StreamingDecoder:
        """A decoder whose audio is that of one decode, sample for sample."""
        from data_prep.codec.encodec_stream import EncodecStream

        return EncodecStream(self)


def load(source: CodecSource, device: str | torch.device = "cpu") -> EncodecCodec | EncodecChunks:
    """Load EnCodec's weights from a base or from a folder of their own, with all the codebooks of its highest bitrate.

    Raises:
        UserError: the weights are incomplete, or it is an EnCodec that cannot be used here.
    """
    from transformers import EncodecConfig, EncodecModel

    config: Any = EncodecConfig.from_dict(dict(source.config))
    streams = streams_of(source, config.audio_channels)
    chunks = config.normalize and config.chunk_length_s is not None
    if not chunks and (config.normalize or config.chunk_length_s is not None or config.norm_type != "weight_norm"):
        raise UserError(
            "This EnCodec cannot be used: it must normalise each of its chunks, or have no chunks and no "
            "normalisation over time.",
            where=str(source.where),
            fix="Use a codec whose configuration is that of EnCodec at 24, 32 or 48 kHz.",
        )
    spec = CodecSpec(
        sample_rate_hz=config.sampling_rate,
        hop_samples=config.hop_length,
        channels=config.audio_channels * streams,
        n_codebooks=(config.num_quantizers + chunks) * streams,
        card=config.codebook_size,
    )
    chunk_frames = spec.frames_in(config.chunk_length_s or 0.0)
    config.chunk_length_s = None  # chunks are cut here
    model, name = load_model(EncodecModel, config, source, device)
    if not chunks:
        return EncodecCodec(model, spec, name, streams=streams)
    codec = EncodecChunks(model, spec, name, streams=streams)
    codec.chunk_frames = chunk_frames
    return codec
