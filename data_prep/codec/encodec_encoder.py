"""EnCodec's encoder over a long piece in stretches, equal to one go but for the order of float sums.

A stack of convolutions down to the frame rate, an LSTM over all time, one more convolution. The convolutions are given
the samples and frames around a stretch; the LSTM's state is handed on.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from data_prep.codec.conv_reach import encoder_reach_samples


def encode_in_order(
    model: Any, audio: Float[Tensor, "B c N"], hop_samples: int, stretch_frames: int, device: torch.device
) -> Int[Tensor, "B k T"]:
    """Codes of a long piece on the CPU, at most a stretch and its context on the device at a time."""
    bandwidth = model.config.target_bandwidths[-1]
    parts = latents_in_order(model, audio, hop_samples, stretch_frames, device)
    codes = [model.quantizer.encode(latents, bandwidth).transpose(0, 1).to("cpu") for latents in parts]  # [B, k, t]
    return torch.cat(codes, dim=2)


def latents_in_order(
    model: Any, audio: Float[Tensor, "B c N"], hop_samples: int, stretch_frames: int, device: torch.device
) -> Iterator[Float[Tensor, "B D _"]]:
    """The encoder's output for a long piece, stretch after stretch, on the device."""
    layers = list(model.encoder.layers)
    at = next(i for i, layer in enumerate(layers) if hasattr(layer, "lstm"))
    last = nn.Sequential(*layers[at + 1 :])
    reach = max(1, encoder_reach_samples(last, causal=True))
    held: Tensor | None = None  # the LSTM's output, from frame `held_from` on
    held_from = done = known = 0
    for new, is_end in _through_lstm(layers[:at], layers[at].lstm, audio, hop_samples, stretch_frames, device):
        held = new if held is None else torch.cat([held, new], dim=2)
        known += new.shape[2]
        until = known if is_end else known - reach
        if until <= done:
            continue
        yield last(held)[:, :, done - held_from : until - held_from]
        done, keep_from = until, max(held_from, until - reach)
        held, held_from = held[:, :, keep_from - held_from :], keep_from


def _through_lstm(
    down: list[Any], lstm: Any, audio: Float[Tensor, "B c N"], hop: int, stretch: int, device: torch.device
) -> Iterator[tuple[Tensor, bool]]:
    """Stretches [B, D, n] as the LSTM gives them, and whether each is the last."""
    stack = nn.Sequential(*down)
    context = -(-encoder_reach_samples(stack, causal=True) // hop)
    n_frames = -(-audio.shape[2] // hop)
    state: Any = None
    for start in range(0, n_frames, stretch):
        end, before = min(n_frames, start + stretch), max(0, start - context)
        part = audio[:, :, before * hop : (end + context) * hop].to(device)
        x = stack(part)[:, :, start - before : end - before].permute(2, 0, 1)  # [n, B, D]
        out, state = lstm(x, state)
        yield (out + x).permute(1, 2, 0), end == n_frames
