"""Slow and obvious: what the decode engine should play, from transformers' own forward pass and plain Python."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MASK = 0xFFFFFFFF


def mix(x: int) -> int:
    x = ((x ^ (x >> 16)) * 0x45D9F3B) & MASK
    x = ((x ^ (x >> 16)) * 0x45D9F3B) & MASK
    return x ^ (x >> 16)


def noise(seed: int, frame: int, codebook: int, token: int) -> float:
    """Gumbel noise of one cell and token, for a seed below 2^32."""
    word = mix(seed & MASK) ^ 0x5BD1E995
    place = mix((frame * 0x9E3779B9 + codebook) & MASK)
    cell = mix(word ^ place)
    mixed = mix(mix((cell + token * 0x9E3779B9) & MASK))
    return -math.log(-math.log(((mixed >> 8) + 0.5) / 2**24))


def pick(logits: Tensor, temperature: float, top_k: int, top_p: float, noises: Sequence[float]) -> int:
    """One token from logits [card]: filters as lists, then the largest of logit plus noise."""
    if temperature == 0:
        return int(logits.argmax())
    scaled = [float(value) / temperature for value in logits]
    order = sorted(range(len(scaled)), key=lambda token: -scaled[token])
    kept = order[: top_k or len(order)]
    if 0 < top_p < 1:
        weights = [math.exp(scaled[token] - scaled[kept[0]]) for token in kept]
        before, held = 0.0, []
        for token, weight in zip(kept, weights, strict=True):
            if before < top_p:
                held.append(token)
            before += weight / sum(weights)
        kept = held
    return max(kept, key=lambda token: scaled[token] + noises[token])


@torch.no_grad()
def play(
    model: Any,
    text: Tensor,
    n_frames: int,
    seed: int,
    *,
    guidance: float,
    temperature: Sequence[float],
    top_k: Sequence[int],
    top_p: Sequence[float],
) -> Tensor:
    """Codes [K, T] of one piece, all of it through the whole model at every step. `text` is [L, D_text]."""
    config = model.config.decoder
    K, card, channels = config.num_codebooks, config.vocab_size, config.audio_channels
    projected = model.enc_to_dec_proj(text)[None]
    sequence = torch.full((K, 1), card)
    codes = torch.full((K, n_frames), -1)
    for step in range(n_frames + (K - 1) // channels):
        rows = [
            model.decoder(sequence, encoder_hidden_states=states).logits[:, -1] for states in (projected, projected * 0)
        ]
        logits = rows[1] + (rows[0] - rows[1]) * guidance  # [K, card]
        column = torch.full((K, 1), card)
        for k in range(K):
            frame = step - k // channels
            if 0 <= frame < n_frames:
                noises = [noise(seed, frame, k, token) for token in range(card)]
                codes[k, frame] = column[k] = pick(logits[k], temperature[k], top_k[k], top_p[k], noises)
        sequence = torch.cat([sequence, column], dim=1)
    return codes
