"""EnCodec (Défossez et al. 2022, arXiv:2210.13438) as MusicGen uses it: audio in, token frames out, and back.

The codec is not causal and pads by reflection at both ends, so a clip's last frames depend on where it ends: clips are
batched only with clips of the same length and never padded.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from configs.errors import UserError
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
        return self.model.encode(audio).audio_codes[0]

    def decode_batch(self, codes: Int[Tensor, "B k T"]) -> Float[Tensor, "B c N"]:
        """Audio of the codes."""
        return self.model.decode(codes[None], [None]).audio_values

    def stream(self) -> StreamingDecoder:
        """A decoder whose audio is that of one decode, sample for sample."""
        from data_prep.codec.encodec_stream import EncodecStream

        return EncodecStream(self)


def load(source: CodecSource, device: str | torch.device = "cpu") -> EncodecCodec:
    """Load EnCodec's weights from a base or from a folder of their own.

    Raises:
        UserError: the weights are incomplete, or it is an EnCodec that cannot be used here.
    """
    from transformers import EncodecConfig, EncodecModel

    config: Any = EncodecConfig.from_dict(dict(source.config))
    streams = streams_of(source, config.audio_channels)
    if config.audio_channels != 1 or config.normalize or config.chunk_length_s is not None:
        raise UserError(
            "This EnCodec cannot be used: it must be mono, not normalising, and not cut into chunks "
            f"({config.audio_channels} channels here).",
            where=str(source.where),
            fix="Use a base whose files belong together, e.g. facebook/musicgen-small.",
        )
    spec = CodecSpec(
        sample_rate_hz=config.sampling_rate,
        hop_samples=config.hop_length,
        channels=config.audio_channels * streams,
        n_codebooks=config.num_quantizers * streams,
        card=config.codebook_size,
    )
    model, name = load_model(EncodecModel, config, source, device)
    return EncodecCodec(model, spec, name, streams=streams)
