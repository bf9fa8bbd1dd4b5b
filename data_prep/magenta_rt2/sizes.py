"""The sizes of a Magenta RealTime 2 language model, read from its tensors. No torch here.

Facts from the official package, magenta-rt 2.0.3 (`config.py`, `jax/model.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from configs.errors import UserError
from data_prep.magenta_rt2 import layout

N_RESERVED = 6
"""Ids at the start of every vocabulary that are no data; 0 begins a piece."""
N_STYLE_TOKENS = 12
N_NOTES = 128
N_CONDITION_IDS = N_STYLE_TOKENS + N_NOTES + 1 + 3
"""Per frame: 12 style tokens, 128 notes, drums, and the strengths of guidance for style, notes and drums."""
STYLE_CARD = 1024
STYLE_VOCABULARY = STYLE_CARD + N_RESERVED + 1
_NOTE, _DRUMS, _STRENGTHS = 4 + N_RESERVED + 1, 2 + N_RESERVED + 1, (41 + N_RESERVED, 41 + N_RESERVED, 9 + N_RESERVED)
CONTROL_VOCABULARIES = (_NOTE,) * N_NOTES + (_DRUMS, *_STRENGTHS)
"""Ids of each note slot, the drum slot and the three strengths; the strengths have no id for `unknown`."""
CONTEXT_FRAMES = 500
"""20 s: what all layers together look back. Small: 12 layers of 41 frames; base: 20 of 25."""


@dataclass(frozen=True)
class StackSize:
    """One stack of transformer layers: how many, D, feed-forward width, heads, width of a head."""

    layers: int
    width: int
    hidden: int
    heads: int
    head_width: int


@dataclass(frozen=True)
class MagentaSpec:
    """All sizes of one language model.

    `window_frames` is how many past frames a temporal layer sees besides the current one, in self-attention and in
    cross-attention alike. `source_width` is the width of the embedded conditions.
    """

    temporal: StackSize
    depth: StackSize
    source_width: int
    window_frames: int
    style_width: int = 768
    n_codebooks: int = 12
    card: int = 1024
    logit_cap: float = 30.0

    @property
    def n_ids(self) -> int:
        """Ids of the codes: the reserved ones, then `card` per codebook."""
        return N_RESERVED + self.n_codebooks * self.card

    @property
    def n_control_ids(self) -> int:
        """Rows of the embedding of notes, drums and strengths, rounded up to a multiple of 128."""
        return -(-sum(CONTROL_VOCABULARIES) // 128) * 128

    @property
    def n_parameters(self) -> int:
        """Numbers in the language model, style embedding included, codec not."""
        return sum(_count(shape) for shape in layout.lm_shapes(self).values())


SMALL = MagentaSpec(StackSize(12, 1024, 4096, 8, 128), StackSize(2, 768, 3072, 6, 128), 256, 41)
"""`mrt2_small`."""
BASE = MagentaSpec(StackSize(20, 3072, 8192, 24, 128), StackSize(6, 1024, 4096, 8, 128), 1024, 25)
"""`mrt2_base`."""


def spec_of(shapes: Mapping[str, tuple[int, ...]], window_frames: int | None = None, where: str = "") -> MagentaSpec:
    """The sizes that these tensors have, by official name; nothing else is needed to load them.

    The window is no tensor's shape. Unless given, it follows from the number of layers as in the official models.

    Raises:
        UserError: a tensor is missing, or has a shape that this architecture does not allow.
    """
    try:
        temporal, depth = _stack(shapes, layout.TEMPORAL), _stack(shapes, layout.DEPTH)
        n_ids = shapes[layout.EMBEDDING][0]
        style_rows, style_width = shapes[layout.STYLE_EMBEDDING]
        source_width = shapes[layout.STYLE_PROJECTION][1]
    except (KeyError, ValueError) as error:
        raise _refused(f"the tensor {error} is missing or has another form", where) from error
    if style_rows != N_STYLE_TOKENS * STYLE_VOCABULARY:
        raise _refused(f"it has {style_rows} style embeddings, not {N_STYLE_TOKENS * STYLE_VOCABULARY}", where)
    card, rest = divmod(n_ids - N_RESERVED, N_STYLE_TOKENS)
    if rest:
        raise _refused(f"{n_ids} ids are not {N_RESERVED} and 12 codebooks of one size", where)
    window = CONTEXT_FRAMES // temporal.layers if window_frames is None else window_frames
    spec = MagentaSpec(temporal, depth, source_width, window, style_width, card=card)
    _check(spec, shapes, where)
    return spec


def _stack(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> StackSize:
    layers = len({name.removeprefix(prefix).partition("/")[0] for name in shapes if name.startswith(prefix)})
    first = f"{prefix}0/"
    width, heads, head_width = shapes[f"{first}self_attention/attention/query_projection/kernel"]
    _, hidden = shapes[f"{first}ffn/ffn_layer1/kernel"]
    return StackSize(layers, width, hidden, heads, head_width)


def _check(spec: MagentaSpec, shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    expected = layout.lm_shapes(spec)
    found = {name: tuple(shape) for name, shape in shapes.items() if name.startswith(layout.LM)}
    problems = [f"missing: {name}" for name in sorted(expected.keys() - found.keys())]
    problems += [f"unexpected: {name}" for name in sorted(found.keys() - expected.keys())]
    problems += [
        f"{name}: shape {list(found[name])}, expected {list(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if found[name] != expected[name]
    ]
    if problems:
        more = f"\n  and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise _refused("its tensors do not fit together:\n  " + "\n  ".join(problems[:8]) + more, where)


def _refused(what: str, where: str) -> UserError:
    return UserError(
        f"This is no Magenta RealTime 2 language model: {what}.",
        where=where,
        fix="Fetch the checkpoint again; it is checkpoints/mrt2_small.safetensors or mrt2_base.safetensors.",
    )


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
