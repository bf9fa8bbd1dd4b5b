"""How surprised a model is by music: cross-entropy of given codes, with the very weights that decoding uses.

This is how faster arithmetic is judged: what fp16 or int8 weights add to the loss on held-out clips, against fp32.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from adapters import pattern
from adapters.decode.cache import KeyValueCache
from adapters.decode.conditions import Hearing, hear_part
from adapters.decode.network import Rows, attend_from_start, embed, logits, run_layers
from adapters.decode.weights import DecoderWeights


@torch.no_grad()
def surprise(
    weights: DecoderWeights, codes: Int[Tensor, "K T"], text: Float[Tensor, "L D_text"]
) -> Float[Tensor, "K T"]:
    """Cross-entropy in nats of every code, given the text and everything before it in the delay pattern."""
    shape = weights.shape
    n_frames = torch.tensor([codes.shape[1]])
    inputs, labels = pattern.inputs_and_labels(codes[None].cpu(), n_frames, shape.special, channels=shape.channels)
    inputs, labels = inputs.to(weights.device), labels.to(weights.device)
    n_steps = inputs.shape[2]
    x = (embed(weights, inputs) + weights.positions(n_steps))[0]  # [S, D]
    cache = KeyValueCache(shape, 1, n_steps, weights.device, weights.cache_dtype)
    hearing = Hearing([hear_part(weights, [text])])
    heard = run_layers(weights, x, Rows(1, False), hearing, attend_from_start(cache, 0))
    shown = logits(weights, heard)  # [S, K, card]
    loss = functional.cross_entropy(
        shown.transpose(1, 2), labels[0].T, reduction="none", ignore_index=pattern.IGNORE
    )  # [S, K]
    frame = torch.arange(codes.shape[1], device=weights.device)
    step = frame + pattern.delays(shape.n_codebooks, shape.channels).to(weights.device)[:, None]  # [K, T]
    return loss.T.gather(1, step).to("cpu")
