"""What audiocraft calls the LM's tensors, and what it packs: query, key and value lie above each other in one weight.

The names were read from audiocraft 1.3.0 (models/lm.py, modules/transformer.py) and agree with what the checkpoints on
the hub hold. The melody models have no cross-attention, a second conditioner, and the window of its spectrogram beside
the weights.
"""

import re
from collections.abc import Iterable

from configs.errors import UserError

LAYER = r"decoder\.model\.decoder\.layers\.(\d+)"
TEXT = "condition_provider.conditioners.description.output_proj"
CHROMA = "condition_provider.conditioners.self_wav"
CHROMA_WINDOW = f"{CHROMA}.chroma.spec.window"
"""A buffer that is computed and stored all the same: a Hann window."""
INSIDE = {
    "fc1.weight": "linear1.weight",
    "fc2.weight": "linear2.weight",
    "self_attn.out_proj.weight": "self_attn.out_proj.weight",
    "encoder_attn.out_proj.weight": "cross_attention.out_proj.weight",
    **{
        f"{ours}.{part}": f"{theirs}.{part}"
        for ours, theirs in (
            ("self_attn_layer_norm", "norm1"),
            ("encoder_attn_layer_norm", "norm_cross"),
            ("final_layer_norm", "norm2"),
        )
        for part in ("weight", "bias")
    },
}
"""Within a layer, ours → audiocraft's."""
PACKED = {"self_attn": "self_attn.in_proj_weight", "encoder_attn": "cross_attention.in_proj_weight"}
ORDER = ("q_proj", "k_proj", "v_proj")
OUTSIDE = (
    (re.compile(r"decoder\.model\.decoder\.embed_tokens\.(\d+)\.weight"), r"emb.\1.weight"),
    (re.compile(r"decoder\.lm_heads\.(\d+)\.weight"), r"linears.\1.weight"),
    (re.compile(r"decoder\.model\.decoder\.layer_norm\.(weight|bias)"), r"out_norm.\1"),
    (re.compile(r"enc_to_dec_proj\.(weight|bias)"), TEXT + r".\1"),
    (re.compile(r"audio_enc_to_dec_proj\.(weight|bias)"), CHROMA + r".output_proj.\1"),
)


def packing(names: Iterable[str]) -> dict[str, list[str]]:
    """Their names → ours, in the order in which they lie above each other (one, or q, k and v).

    Raises:
        UserError: a name that audiocraft's LM has no place for.
    """
    packed: dict[str, list[str]] = {}
    for name in names:
        packed.setdefault(_theirs(name), []).append(name)
    for parts in packed.values():
        parts.sort(key=_place)
    return packed


def _theirs(name: str) -> str:
    inside = re.fullmatch(rf"{LAYER}\.(.+)", name)
    if inside:
        number, rest = inside.groups()
        attention = re.fullmatch(r"(self_attn|encoder_attn)\.(q|k|v)_proj\.weight", rest)
        found = PACKED[attention[1]] if attention else INSIDE.get(rest)
        if found:
            return f"transformer.layers.{number}.{found}"
    for pattern, theirs in OUTSIDE:
        found = pattern.fullmatch(name)
        if found:
            return found.expand(theirs)
    raise UserError(f"audiocraft's LM has no place for {name}.", fix="Only MusicGen can be converted.")


def _place(name: str) -> int:
    return next((place for place, part in enumerate(ORDER) if f".{part}." in name), 0)
