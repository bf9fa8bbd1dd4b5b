"""EnCodec at 48 kHz: native stereo, in chunks of one second that are normalised to one level and coded alone.

The level of a chunk is a number beside the codes in the reference implementation. Here it is codebook 0: steps of
0.1 dB from -102.3 to 0 dB (wider where codebooks hold fewer than 1024 entries), the same in every frame of the chunk
(ten bits a second), so that codes alone give the audio back. Chunks do not overlap: the reference's 1 % would make
151.5 frames of every second of audio.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_prep.codec.port import StreamingDecoder
from data_prep.codec.transformers_codec import TransformersCodec

LEVEL_RANGE_DB = 102.4


class EncodecChunks(TransformersCodec):
    """EnCodec with chunks and normalisation. `chunk_frames` is the length of a chunk."""

    chunk_frames: int = 150

    @property
    def level_step_db(self) -> float:
        """Difference of two neighbouring levels."""
        return LEVEL_RANGE_DB / self.card

    @property
    def codebook_counts(self) -> tuple[int, ...]:
        """The level, and one or more codebooks."""
        per_stream = self.n_codebooks // self.streams
        return tuple(self.streams * count for count in range(2, per_stream + 1))

    @property
    def can_stream(self) -> bool:
        """Always: a chunk is decoded alone."""
        return True

    def bitrate_bps(self, n_codebooks: int | None = None) -> float:
        """Bits per second; the level counts once per chunk."""
        count = (self.n_codebooks if n_codebooks is None else n_codebooks) // self.streams
        return self.streams * self.spec.bits_per_code * self.frame_rate * (count - 1 + 1 / self.chunk_frames)

    @property
    def encode_context_frames(self) -> int:
        """None: chunks know nothing of each other."""
        return 0

    def encode_long(self, audio: Float[Tensor, "B c N"]) -> Int[Tensor, "B k T"]:
        """The same as any length: a chunk at a time."""
        return self.encode_batch(audio)

    def encode_batch(self, audio: Float[Tensor, "B c N"]) -> Int[Tensor, "B k T"]:
        """Codes of clips of one length, level first."""
        size = self.chunk_frames * self.hop_samples
        parts = []
        for start in range(0, audio.shape[2], size):
            chunk = audio[:, :, start : start + size].to(self.device)
            made = self.model.encode(chunk, bandwidth=self.model.config.target_bandwidths[-1])
            codes = made.audio_codes[0]  # [B, k - 1, t]
            level = self._level_code(made.audio_scales[0])  # [B, 1]
            parts.append(torch.cat([level[:, :, None].expand(-1, 1, codes.shape[2]), codes], dim=1).to("cpu"))
        return torch.cat(parts, dim=2)

    def decode_batch(self, codes: Int[Tensor, "B k T"]) -> Float[Tensor, "B c N"]:
        """Audio of the codes, a chunk at a time. Where a chunk's levels differ, their mean counts."""
        parts = []
        for chunk in codes.split(self.chunk_frames, dim=2):
            level_db = (chunk[:, 0].float().mean(dim=1) - (self.card - 1)) * self.level_step_db
            scale = 10 ** (level_db / 20)
            audio = self.model.decode(chunk[None, :, 1:], [scale[:, None]]).audio_values
            parts.append(audio[:, :, : chunk.shape[2] * self.hop_samples])
        return torch.cat(parts, dim=2)

    def stream(self) -> StreamingDecoder:
        """A decoder that hands out whole chunks."""
        return ChunkStream(self)

    def _level_code(self, scale: Float[Tensor, "B 1"]) -> Int[Tensor, "B 1"]:
        steps = (20 * scale.log10() / self.level_step_db).round().long()
        return (steps + self.card - 1).clamp(0, self.card - 1)


class ChunkStream(StreamingDecoder):
    """Gathers frames until a chunk is whole."""

    def __init__(self, codec: EncodecChunks) -> None:
        self.codec = codec
        self.waiting: Tensor | None = None

    @property
    def latency_frames(self) -> int:
        """The rest of the chunk."""
        return self.codec.chunk_frames - 1

    @torch.inference_mode()
    def push(self, codes: Int[Tensor, "K n"] | Int[np.ndarray, "K n"], *, last: bool = False) -> Float[Tensor, "C N"]:
        """Take more frames, give the audio of the chunks that are whole (on the CPU); with `last`, all the rest."""
        new = torch.as_tensor(codes).to(self.codec.device, torch.long)
        known = new if self.waiting is None else torch.cat([self.waiting, new], dim=1)
        ready = known.shape[1] if last else known.shape[1] // self.codec.chunk_frames * self.codec.chunk_frames
        self.waiting = known[:, ready:]
        if ready == 0:
            return torch.zeros(self.codec.channels, 0)
        return self.codec.decode_whole(known[:, :ready]).to("cpu")
