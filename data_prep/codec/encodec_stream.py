"""Audio as the frames come in, sample for sample what one decode of the whole piece gives.

EnCodec's decoder is a convolution over frames, an LSTM over all time, and an upsampling stack of convolutions. The
LSTM's state is carried from call to call, so it has heard everything; the convolutions see a few frames to either side,
so each stretch is computed with that many frames of context and cut. The frames to the right cost latency: 6 frames,
0.12 s, for MusicGen's codec. What remains against one decode is the order of float sums.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data_prep.codec.encodec import EncodecCodec
from data_prep.codec.port import StreamingDecoder


class EncodecStream(StreamingDecoder):
    """Decodes one piece, pushed in stretches of any length. Holds the audio of no more than one stretch."""

    def __init__(self, codec: EncodecCodec) -> None:
        self.codec = codec
        layers: list[Any] = list(codec.model.decoder.layers)
        if codec.model.config.norm_type != "weight_norm" or len(layers) < 3 or not hasattr(layers[1], "lstm"):
            raise ValueError("this codec's decoder normalises over time or has another form: it cannot be streamed")
        self.first, self.lstm, self.tail = layers[0], layers[1].lstm, layers[2:]
        self.first_reach = _conv_reach(self.first)
        self.tail_reach = _reach_in_frames(self.tail)
        causal = bool(codec.model.config.use_causal_conv)
        self.first_right, self.tail_right = (0, 0) if causal else (self.first_reach, self.tail_reach)
        # Reflection at the piece's beginning looks ahead, in a causal codec too: so many frames must be there first.
        self.to_begin = self.first_reach + self.tail_reach
        self.state: tuple[Tensor, Tensor] | None = None
        self.embedded: Tensor | None = None  # [C, D, frames], from frame `embedded_from` on
        self.embedded_from = 0
        self.sung: Tensor | None = None  # what the LSTM put out, [C, D', frames], from frame `sung_from` on
        self.sung_from = 0
        self.heard = self.decoded = 0  # frames through the LSTM; frames handed out as audio

    @property
    def latency_frames(self) -> int:
        """How many frames behind a sample must be known; in a causal codec, only at the piece's beginning."""
        return self.to_begin

    @torch.inference_mode()
    def push(self, codes: Int[Tensor, "K n"] | Int[np.ndarray, "K n"], *, last: bool = False) -> Float[Tensor, "C N"]:
        """Hear more frames, get the audio that has become certain (on the CPU); with `last`, all the rest."""
        self._embed(torch.as_tensor(codes).to(self.codec.device, torch.long))
        self._sing(last)
        return self._upsample(last)

    def _embed(self, codes: Int[Tensor, "K n"]) -> None:
        channels = self.codec.streams
        per_channel = codes.reshape(-1, channels, codes.shape[1])  # [K/C, C, n]
        new = self.codec.model.quantizer.decode(per_channel)  # [C, D, n]
        self.embedded = new if self.embedded is None else torch.cat([self.embedded, new], dim=2)

    def _sing(self, last: bool) -> None:
        """Through the first convolution and the LSTM, as far as the right context allows."""
        assert self.embedded is not None
        known = self.embedded_from + self.embedded.shape[2]
        if known <= self.to_begin and not last:
            return
        until = known if last else known - self.first_right
        if until <= self.heard:
            return
        x = self.first(self.embedded)[:, :, self.heard - self.embedded_from : until - self.embedded_from]
        x = x.permute(2, 0, 1)  # [n, C, D']
        out, self.state = self.lstm(x, self.state)
        new = (out + x).permute(1, 2, 0)
        self.sung = new if self.sung is None else torch.cat([self.sung, new], dim=2)
        self.heard = until
        keep_from = max(self.embedded_from, until - self.first_reach)
        self.embedded = self.embedded[:, :, keep_from - self.embedded_from :]
        self.embedded_from = keep_from

    def _upsample(self, last: bool) -> Float[Tensor, "C N"]:
        until = self.heard if last else self.heard - self.tail_right
        if self.sung is None or until <= self.decoded:
            return torch.zeros(self.codec.channels, 0)
        x = self.sung
        for layer in self.tail:
            x = layer(x)
        hop = self.codec.hop_samples
        audio = x[:, 0, (self.decoded - self.sung_from) * hop : (until - self.sung_from) * hop]  # [C, N]
        self.decoded = until
        keep_from = max(self.sung_from, until - self.tail_reach)
        self.sung = self.sung[:, :, keep_from - self.sung_from :]
        self.sung_from = keep_from
        return audio.to("cpu")


def _conv_reach(conv: Any) -> int:
    """How far to either side an EnCodec convolution looks, at its own rate."""
    span = int(conv.kernel_size) - 1  # dilation included
    return span if conv.causal else math.ceil(span / 2)


def _reach_in_frames(layers: list[Any]) -> int:
    """How many frames to either side a stack of convolutions and upsamplings looks: walked from its output back."""
    reach = 0
    for layer in reversed(layers):
        if hasattr(layer, "block"):
            reach += sum(_conv_reach(inner) for inner in layer.block if hasattr(inner, "conv"))
        elif isinstance(getattr(layer, "conv", None), torch.nn.ConvTranspose1d):
            kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
            reach = math.ceil((reach + kernel) / stride)
        elif hasattr(layer, "conv"):
            reach += _conv_reach(layer)
    return reach
