"""Long pieces in stretches, for any codec: each stretch with what lies around it and decides it, then cut.

Where the codec's reach is finite and known, the joined audio is that of one decode, but for the order of float sums. A
codec that sees its whole piece at once gets `UNKNOWN_REACH_SEC` on either side: bounded memory, nearly the same audio.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_prep.codec.port import Codec, StreamingDecoder

UNKNOWN_REACH_SEC = 5.0


class ContextDecoder(StreamingDecoder):
    """Holds the codes of one stretch and its context, and decodes them anew for each stretch."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        known = codec.context_frames
        self.reach = codec.spec.frames_in(UNKNOWN_REACH_SEC) if known is None else known
        self.codes: Tensor | None = None  # [K, frames], from frame `codes_from` on
        self.codes_from = self.decoded = 0

    @property
    def latency_frames(self) -> int:
        """The context to the right."""
        return self.reach

    @torch.inference_mode()
    def push(self, codes: Int[Tensor, "K n"] | Int[np.ndarray, "K n"], *, last: bool = False) -> Float[Tensor, "C N"]:
        """Take more frames, give the audio that has become certain (on the CPU); with `last`, all the rest."""
        new = torch.as_tensor(codes).to(self.codec.device, torch.long)
        self.codes = new if self.codes is None else torch.cat([self.codes, new], dim=1)
        known = self.codes_from + self.codes.shape[1]
        until = known if last else known - self.reach
        if until <= self.decoded:
            return torch.zeros(self.codec.channels, 0)
        hop = self.codec.hop_samples
        audio = self.codec.decode_whole(self.codes)[:, (self.decoded - self.codes_from) * hop :]
        audio = audio[:, : (until - self.decoded) * hop].to("cpu")
        self.decoded = until
        keep_from = max(self.codes_from, until - self.reach)
        self.codes = self.codes[:, keep_from - self.codes_from :]
        self.codes_from = keep_from
        return audio


def encode_in_stretches(
    encode: Callable[[Float[Tensor, "B c _"]], Int[Tensor, "B k _"]],
    audio: Float[Tensor, "B c N"],
    hop_samples: int,
    *,
    stretch_frames: int,
    context_frames: int,
) -> Int[Tensor, "B k T"]:
    """Codes of a long piece, a stretch with its context at a time. The piece's own two ends are where they are."""
    n_frames = -(-audio.shape[2] // hop_samples)
    parts = []
    for start in range(0, n_frames, stretch_frames):
        end = min(n_frames, start + stretch_frames)
        before = max(0, start - context_frames)
        codes = encode(audio[:, :, before * hop_samples : (end + context_frames) * hop_samples])
        parts.append(codes[:, :, start - before : end - before])
    return torch.cat(parts, dim=2)
