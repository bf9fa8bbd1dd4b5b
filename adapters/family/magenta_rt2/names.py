"""Tensors of an official checkpoint under our module names, and back. Values only change places, never size.

Kernels are stored [in, out] (attention [in, heads, head width]) and torch's weights are [out, in]; output projections
are [out, heads, head width] already. The official logits are one projection over all ids, ours one per codebook.
"""

from collections.abc import Iterator

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


def owners(spec: MagentaSpec) -> dict[str, list[str]]:
    """The official name of every tensor → ours; the logits belong to one head per codebook and the reserved rows."""
    heads = ["depth.reserved", *(f"depth.heads.{level}" for level in range(spec.n_codebooks))]
    found = {theirs: [ours] for ours, theirs in official_names(spec).items()}
    found[f"{layout.LOGITS}/kernel"] = [f"{head}.weight" for head in heads]
    found[f"{layout.LOGITS}/bias"] = [f"{head}.bias" for head in heads]
    return found


def pieces(name: str, tensor: Tensor, spec: MagentaSpec) -> list[Tensor]:
    """An official tensor in our shape, one piece for each of its owners."""
    if name.startswith(layout.LOGITS):
        rows = tensor.T if name.endswith("/kernel") else tensor  # [n_ids, D] or [n_ids]
        return [rows[:N_RESERVED], *rows[N_RESERVED:].split(spec.card)]
    if name.endswith("output_projection/kernel"):
        return [tensor.flatten(1)]
    if name.endswith("/kernel"):
        return [tensor.flatten(1).T]
    return [tensor[0] if "/sink_" in name else tensor]


def assemble(name: str, parts: list[Tensor], spec: MagentaSpec) -> Tensor:
    """The reverse of `pieces`."""
    whole = torch.cat(parts) if name.startswith(layout.LOGITS) else parts[0]
    turned = name.endswith("/kernel") and not name.endswith("output_projection/kernel")
    return (whole.T if turned else whole).reshape(layout.lm_shapes(spec)[name])
