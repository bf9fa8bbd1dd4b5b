"""Names and shapes of the language model's tensors in an official checkpoint. No torch here.

Attention kernels are [width, heads, head width], output projections too; dense kernels are [in, out]. Read from
checkpoints that the official package writes (magenta-rt 2.0.3).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_prep.magenta_rt2.sizes import MagentaSpec, StackSize

LM = "params/depthformer/"
CODEC = "params/soundstream/"
"""In a checkpoint: the codec's decoder and quantiser, which the official player reads from here."""
TEMPORAL = f"{LM}decoder/temporal_body/transformer/x_layers_"
DEPTH = f"{LM}decoder/depth_body/transformer/x_layers_"
EMBEDDING = f"{LM}decoder/decoder_embedding/embedding/embedding"
STYLE = f"{LM}encoder/body/layers_1/branched_mulan_embedder/mulan_embedder/"
STYLE_EMBEDDING = f"{STYLE}mulan_dequantizer/embedding"
STYLE_PROJECTION = f"{STYLE}depth_input_adapter/kernel"
CONTROLS = f"{LM}encoder/body/layers_1/branched_regular_embedder/regular_embedder/embedding"
SOURCE_NORM = f"{LM}encoder/body/encoder_ln"
DEPTH_ADAPTER = f"{LM}decoder/depth_body/depth_input_adapter/kernel"
DEPTH_NORM = f"{LM}decoder/depth_body/final_ln"
LOGITS = f"{LM}decoder/depth_body/to_logits"

Shapes = dict[str, tuple[int, ...]]


def lm_shapes(spec: "MagentaSpec") -> Shapes:
    """Every tensor of the language model with its shape, by official name."""
    temporal, depth = spec.temporal, spec.depth
    shapes: Shapes = {
        EMBEDDING: (spec.n_ids, temporal.width),
        STYLE_EMBEDDING: (12 * 1031, spec.style_width),
        STYLE_PROJECTION: (spec.style_width, spec.source_width),
        CONTROLS: (spec.n_control_ids, spec.source_width),
        **_affine(SOURCE_NORM, spec.source_width),
        **_affine(DEPTH_NORM, depth.width),
        f"{LOGITS}/kernel": (depth.width, spec.n_ids),
        f"{LOGITS}/bias": (spec.n_ids,),
    }
    if temporal.width != depth.width:
        shapes[DEPTH_ADAPTER] = (temporal.width, depth.width)
    for index in range(temporal.layers):
        layer = f"{TEMPORAL}{index}"
        shapes |= _attention(f"{layer}/self_attention", temporal, temporal.width, sink=True)
        shapes |= _attention(f"{layer}/cross_attention", temporal, spec.source_width, sink=True)
        shapes |= _feed_forward(f"{layer}/ffn", temporal)
    for index in range(depth.layers):
        layer = f"{DEPTH}{index}"
        shapes |= _attention(f"{layer}/self_attention", depth, depth.width, sink=False)
        shapes |= _feed_forward(f"{layer}/ffn", depth)
    return shapes


def _affine(name: str, width: int) -> Shapes:
    return {f"{name}/scale": (width,), f"{name}/bias": (width,)}


def _norms(name: str, width: int) -> Shapes:
    return {f"{name}/pre_norm/scale": (width,), f"{name}/post_norm/scale": (width,)}


def _attention(name: str, size: "StackSize", source_width: int, *, sink: bool) -> Shapes:
    heads = (size.heads, size.head_width)
    shapes: Shapes = {
        f"{name}/attention/query_projection/kernel": (size.width, *heads),
        f"{name}/attention/key_projection/kernel": (source_width, *heads),
        f"{name}/attention/value_projection/kernel": (source_width, *heads),
        f"{name}/attention/per_dim_scale": (size.head_width,),
        f"{name}/output_projection/kernel": (size.width, *heads),
        **_norms(name, size.width),
    }
    if sink:
        shapes |= {f"{name}/attention/sink_{kind}_embeddings": (1, *heads) for kind in ("key", "value")}
    return shapes


def _feed_forward(name: str, size: "StackSize") -> Shapes:
    return {
        f"{name}/ffn_layer1/kernel": (size.width, size.hidden),
        f"{name}/ffn_layer1/bias": (size.hidden,),
        f"{name}/ffn_layer2/kernel": (size.hidden, size.width),
        f"{name}/ffn_layer2/bias": (size.width,),
        **_norms(name, size.width),
    }
