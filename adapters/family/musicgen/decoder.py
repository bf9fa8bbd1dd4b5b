"""The decoder's arithmetic: tokens in, logits out, over packed weights and a preallocated cache.

The rows of a batch are the B pieces with their text, then, with guidance, the same B without, once or twice. All read
the same tokens. Activations are 2-D, [M, D] with M = rows · steps: every product here is one matrix times few rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from adapters.added_conditions.prefix import visible
from adapters.family.musicgen.cross_attention import ConditionStates, TextStates
from adapters.family.musicgen.kv_cache import KeyValueCache, as_bias, reachable
from adapters.family.musicgen.weights import CrossWeights, DecoderWeights, LayerWeights, Norm

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q, k, v), each [N, H, n, d] → attended [N, H, n, d]; writes the cache on the way."""


@dataclass
class Rows:
    """How the batch is laid out: `n_text` rows with a text, then as many without for every further pass of guidance."""

    n_text: int
    passes: int

    @property
    def n(self) -> int:
        """All rows."""
        return self.n_text * self.passes


def embed(weights: DecoderWeights, tokens: Int[Tensor, "B K n"]) -> Float[Tensor, "B n D"]:
    """Sum of the K codebooks' embeddings, added up in transformers' order."""
    rows = (tokens + weights.first_rows).transpose(1, 2)  # [B, n, K]
    summed = functional.embedding_bag(rows.flatten(0, 1), weights.embeddings, mode="sum")  # [B·n, D]
    return summed.view(*rows.shape[:2], -1)


def attend_from_start(cache: KeyValueCache, at: int, front: Bool[Tensor, "N P"] | None = None) -> Attend:
    """Attention of steps at .. at + n: everything so far. More than one step only from an empty cache (prefill).

    `front`: of the first P places, those that each row may see; None: all of them.
    """
    if front is not None:
        return _attend_with_front(cache, at, front)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if cache.loops and q.shape[2] == 1:
            return cache.look_back(layer, at, q, k, v)
        keys, values = (held.to(q.dtype) for held in cache.append(layer, at, k, v))
        assert at == 0 or q.shape[2] == 1, "several steps at once only from an empty cache"
        return functional.scaled_dot_product_attention(q, keys, values, is_causal=q.shape[2] > 1)

    return attend


def _attend_with_front(cache: KeyValueCache, at: int, front: Bool[Tensor, "N P"]) -> Attend:
    """The same where rows see different parts of what stands in front; the mask is made once, as numbers."""
    masks: list[Tensor] = []

    def mask(n_places: int, dtype: torch.dtype) -> Tensor:
        if not masks:
            one = functional.pad(front, (0, n_places - front.shape[1]), value=True)[:, None, None]  # [N, 1, 1, s]
            masks.append(as_bias(one if at else visible(front, n_places - front.shape[1]), dtype))
        return masks[0]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if cache.loops and at:
            return cache.look_back(layer, at, q, k, v, front)
        keys, values = (held.to(q.dtype) for held in cache.append(layer, at, k, v))
        return functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask(keys.shape[2], q.dtype))

    return attend


def attend_in_bucket(cache: KeyValueCache, at: Tensor, reach: int, front: Bool[Tensor, "N P"] | None = None) -> Attend:
    """Attention of one step whose place is on the device, with fixed shapes: for captured graphs."""
    mask = reachable(at, reach, cache.keys.dtype)
    if front is not None:
        mask = mask + functional.pad(as_bias(front, mask.dtype), (0, reach - front.shape[1]))[:, None, None]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = cache.append_at(layer, at, reach, k, v)
        return functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask)

    return attend


def run_layers(
    weights: DecoderWeights, x: Float[Tensor, "M D"], rows: Rows, states: ConditionStates, attend: Attend
) -> Float[Tensor, "M D"]:
    """All layers and the final norm. M = rows.n · n, rows outermost. `x` is overwritten."""
    n_steps = len(x) // rows.n
    activation = getattr(functional, weights.spec.activation)
    cross_layer = 0
    for number, layer in enumerate(weights.layers):
        x = x + _self_attention(weights, layer, x, number, (rows.n, n_steps), attend)
        if layer.cross is not None:
            with_text = x[: rows.n_text * n_steps]
            with_text += _cross_attention(weights, layer.cross, with_text, states, cross_layer, (rows.n_text, n_steps))
            cross_layer += 1
        x = x + layer.fc2(activation(layer.fc1(_norm(x, layer.ffn_norm))))
    return _norm(x, weights.final_norm)


def logits(weights: DecoderWeights, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K card"]:
    """Next-token logits of every codebook, fp32."""
    return weights.heads(x).float().unflatten(-1, (weights.spec.n_codebooks, weights.spec.card))


def _norm(x: Tensor, norm: Norm) -> Tensor:
    return torch.layer_norm(x, norm.shape, norm.weight, norm.bias, norm.eps)


def _self_attention(
    weights: DecoderWeights, layer: LayerWeights, x: Tensor, number: int, size: tuple[int, int], attend: Attend
) -> Tensor:
    heads = weights.spec.heads
    qkv = layer.qkv(_norm(x, layer.self_norm)).view(*size, 3, heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # 3 x [N, H, n, d]
    return layer.out(_side_by_side(attend(number, q, k, v), len(x)))


def _cross_attention(
    weights: DecoderWeights, cross: CrossWeights, x: Tensor, states: ConditionStates, number: int, size: tuple[int, int]
) -> Tensor:
    q = cross.q(_norm(x, cross.norm)).view(*size, weights.spec.heads, -1).transpose(1, 2)
    attended = _attend_text(q, states.parts[0], number)
    if states.shares is not None:
        shares = states.shares[..., None, None]  # [parts, B, 1, 1, 1]
        attended = attended * shares[0]
        for part, share in zip(states.parts[1:], shares[1:], strict=True):
            attended = attended + _attend_text(q, part, number) * share
    return cross.out(_side_by_side(attended, len(x)))


def _side_by_side(heads: Float[Tensor, "N H n d"], n_rows: int) -> Float[Tensor, "{n_rows} D"]:
    """All heads of a step in one row."""
    return heads.transpose(1, 2).reshape(n_rows, -1)


def _attend_text(q: Tensor, part: TextStates, number: int) -> Tensor:
    return functional.scaled_dot_product_attention(q, part.keys[number], part.values[number], attn_mask=part.mask)
