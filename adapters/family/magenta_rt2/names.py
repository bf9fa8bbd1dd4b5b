"""Tensors of an official checkpoint under our module names, and back. Values only change places, never size.

Kernels are stored [in, out] (attention [in, heads, head width]) and torch's weights are [out, in]; output projections
are [out, heads, head width] already. The official logits are one projection over all ids, ours one per codebook.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from data_prep.magenta_rt2 import layout
from data_prep.magenta_rt2.sizes import N_RESERVED, MagentaSpec

ATTENTION = {
    "q_proj.weight": "attention/query_projection/kernel",
    "k_proj.weight": "attention/key_projection/kernel",
    "v_proj.weight": "attention/value_projection/kernel",
    "out_proj.weight": "output_projection/kernel",
    "scale": "attention/per_dim_scale",
}
SINK = {"sink.key": "attention/sink_key_embeddings", "sink.value": "attention/sink_value_embeddings"}
FEED_FORWARD = {
    "fc1.weight": "ffn_layer1/kernel",
    "fc1.bias": "ffn_layer1/bias",
    "fc2.weight": "ffn_layer2/kernel",
    "fc2.bias": "ffn_layer2/bias",
}
PARTS = {"self": ("self_attn", "self_attention"), "cross": ("cross_attn", "cross_attention"), "ffn": ("ffn", "ffn")}
TOP = {
    "source.style.weight": layout.STYLE_EMBEDDING,
    "source.style_proj.weight": layout.STYLE_PROJECTION,
    "source.controls.weight": layout.CONTROLS,
    "source.norm.weight": f"{layout.SOURCE_NORM}/scale",
    "source.norm.bias": f"{layout.SOURCE_NORM}/bias",
    "codes.weight": layout.EMBEDDING,
    "depth.adapter.weight": layout.DEPTH_ADAPTER,
    "depth.norm.weight": f"{layout.DEPTH_NORM}/scale",
    "depth.norm.bias": f"{layout.DEPTH_NORM}/bias",
}
SPLIT = ("kernel", "bias")


def official_names(spec: MagentaSpec) -> dict[str, str]:
    """Our name → the official one, for every tensor but the heads, which share one official tensor."""
    names = {ours: official for ours, official in TOP.items() if official in layout.lm_shapes(spec)}
    for stack, prefix, layers in (
        ("temporal", layout.TEMPORAL, spec.temporal.layers),
        ("depth", layout.DEPTH, spec.depth.layers),
    ):
        for index in range(layers):
            names.update(_layer_names(f"{stack}.layers.{index}", f"{prefix}{index}", stack == "temporal"))
    return names


def _layer_names(ours: str, official: str, temporal: bool) -> Iterator[tuple[str, str]]:
    for part in ("self", "cross", "ffn") if temporal else ("self", "ffn"):
        module, group = PARTS[part]
        tensors = FEED_FORWARD if part == "ffn" else ATTENTION | (SINK if temporal else {})
        yield from ((f"{ours}.{module}.{mine}", f"{official}/{group}/{theirs}") for mine, theirs in tensors.items())
        yield from (
            (f"{ours}.norms.{side}_{part}.weight", f"{official}/{group}/{side}_norm/scale") for side in ("pre", "post")
        )


def to_ours(official: Mapping[str, Tensor], spec: MagentaSpec) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the model under our name and in our shape, one at a time; each is read when it is reached."""
    for ours, theirs in official_names(spec).items():
        yield ours, _ours(theirs, official[theirs])
    for kind, leaf in zip(SPLIT, ("weight", "bias"), strict=True):
        rows = official[f"{layout.LOGITS}/{kind}"]
        rows = rows.T if kind == "kernel" else rows  # [n_ids, D] or [n_ids]
        yield f"depth.reserved.{leaf}", rows[:N_RESERVED]
        for level, part in enumerate(rows[N_RESERVED:].split(spec.card)):
            yield f"depth.heads.{level}.{leaf}", part


def to_official(ours: Mapping[str, Tensor], spec: MagentaSpec) -> Iterator[tuple[str, Tensor]]:
    """The reverse of `to_ours`."""
    shapes = layout.lm_shapes(spec)
    for mine, theirs in official_names(spec).items():
        yield theirs, _official(theirs, ours[mine], shapes[theirs])
    for kind, leaf in zip(SPLIT, ("weight", "bias"), strict=True):
        heads = [ours[f"depth.heads.{level}.{leaf}"] for level in range(spec.n_codebooks)]
        rows = torch.cat([ours[f"depth.reserved.{leaf}"], *heads])
        yield f"{layout.LOGITS}/{kind}", rows.T if kind == "kernel" else rows


def _ours(name: str, tensor: Tensor) -> Tensor:
    if name.endswith("output_projection/kernel"):
        return tensor.flatten(1)
    if name.endswith("/kernel"):
        return tensor.flatten(1).T
    return tensor[0] if "/sink_" in name else tensor


def _official(name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    turned = name.endswith("/kernel") and not name.endswith("output_projection/kernel")
    return (tensor.T if turned else tensor).reshape(shape)
