"""What Magenta RealTime 2 keeps during a training step, counted from its layers.

N is the number of rows (batch x frames), e the bytes of an activation, D, F and I the width, the feed-forward's and
that of all heads. The stack over levels has 12 N rows and is never recomputed: in the small model it keeps more than
the stack over frames. Norms are computed in fp32, so each keeps its input in 4 bytes. `finetune.memory.simulate` runs
the real code on the meta device and is the reference in the tests.

What is not known here: what the style projection keeps when it learns (a few rows), dropout, DoRA and autocast.
"""

from adapters.family.magenta_rt2.spec import ALIASES, MagentaLMSpec
from adapters.family.memory import MemoryModel, StepPlan, packed_bytes
from configs.precisions import VALUE_BYTES
from data_prep.magenta_rt2 import layout
from data_prep.magenta_rt2.sizes import N_CONDITION_IDS, MagentaSpec, StackSize

Linear = tuple[int, int, int]


class MagentaMemory(MemoryModel):
    """Two attentions and a feed-forward per frame; attention and a feed-forward per level."""

    def weight_bytes(self, plan: StepPlan) -> int:
        """Linear layers of both stacks as `weights` says, the rest unquantised."""
        value, total = VALUE_BYTES.get(plan.weights, plan.bytes_per_value), 0
        for name, shape in layout.lm_shapes(_sizes(plan)).items():
            size = 1
            for length in shape:
                size *= length
            in_layer = "/x_layers_" in name and name.endswith("/kernel")
            rows = shape[0] if "output_projection" in name else size // shape[0]
            total += packed_bytes(size, rows, plan.weights) if in_layer and plan.quantised else size * value
        return total

    def linears(self, plan: StepPlan) -> list[Linear]:
        """Of every group that the targets name."""
        found = [*_in_temporal(plan), *_in_depth(plan)]
        sizes, groups = _sizes(plan), groups_of(plan.targets)
        if "style_projection" in groups:
            found.append((sizes.style_width, sizes.source_width, 1))
        if "depth_adapter" in groups and sizes.temporal.width != sizes.depth.width:
            found.append((sizes.temporal.width, sizes.depth.width, 1))
        if "heads" in groups:
            found.append((sizes.depth.width, sizes.card, sizes.n_codebooks))
        return found

    def batch_bytes(self, plan: StepPlan) -> int:
        """Codes and labels, conditions per frame, and the embedded conditions that every layer reads."""
        rows, sizes = _rows(plan), _sizes(plan)
        return rows * (2 * sizes.n_codebooks * 8 + N_CONDITION_IDS * 8 + sizes.source_width * plan.bytes_per_value)

    def block_bytes(self, plan: StepPlan) -> int:
        """One layer of the stack over frames."""
        sizes, groups = _sizes(plan), groups_of(plan.targets)
        kept = _stack_row_bytes(
            sizes.temporal,
            plan,
            attentions=2,
            read=len({"temporal_attention", "cross_attention", "ffn"} & groups),
            ffn="ffn" in groups,
            adapted=sum(count for _, _, count in _in_temporal(plan)) // sizes.temporal.layers,
        )
        copies = _numbers(_in_temporal(plan), plan.rank) // sizes.temporal.layers * plan.bytes_per_value
        return _rows(plan) * kept + (copies if plan.bytes_per_value < 4 else 0)

    def after_blocks_bytes(self, plan: StepPlan) -> tuple[int, int]:
        """The stack over levels, the norm and the cap of the logits behind it; and its feed-forward's gradients."""
        sizes, groups, e = _sizes(plan), groups_of(plan.targets), plan.bytes_per_value
        rows, depth = _rows(plan) * sizes.n_codebooks, sizes.depth
        learns = "depth" in groups
        kept = depth.layers * _stack_row_bytes(
            depth, plan, attentions=1, read=2 * learns, ffn=learns, adapted=6 * learns
        )
        kept += depth.width * e + 8 + sizes.card * e  # the last norm's input, the capped logits
        kept += (depth.width + plan.rank) * e if "heads" in groups else 0
        kept += (sizes.temporal.width + plan.rank) * e if "depth_adapter" in groups else 0
        copies = _numbers(_in_depth(plan), plan.rank) * e if e < 4 else 0
        return rows * kept + copies, 2 * rows * depth.hidden * e

    def unneeded_bytes(self, plan: StepPlan) -> int:
        """The first norm's input, where the first attention learns; all before the cross-attention where not."""
        sizes, groups = _sizes(plan), groups_of(plan.targets)
        if plan.checkpointed:
            return 0
        D, e = sizes.temporal.width, plan.bytes_per_value
        if "temporal_attention" in groups:
            return _rows(plan) * D * 4
        return _rows(plan) * (3 * D * 4 + 4 * _inner(sizes.temporal) * e)

    def widest_bytes(self, plan: StepPlan) -> int:
        """Two tensors of the feed-forward's width."""
        temporal, e = _sizes(plan).temporal, plan.bytes_per_value
        dequantised = temporal.width * temporal.hidden * e if plan.quantised else 0
        return 2 * _rows(plan) * temporal.hidden * e + dequantised

    def block_flops(self, plan: StepPlan) -> tuple[float, float]:
        """A layer over frames with its share of the stack over levels. Masked attention computes all pairs."""
        sizes, rows = _sizes(plan), _rows(plan)
        share = sizes.depth.layers / sizes.temporal.layers * sizes.n_codebooks
        linear = 2.0 * rows * (_layer_weights(sizes, sizes.temporal) + share * _layer_weights(sizes, sizes.depth))
        pairs = 8.0 * rows * plan.frames * _inner(sizes.temporal)
        return linear, pairs + 4.0 * rows * share * sizes.n_codebooks * _inner(sizes.depth)

    def adapter_flops(self, plan: StepPlan) -> float:
        """Rows of the stack over levels count twelve times."""
        levels = _sizes(plan).n_codebooks
        numbers = _numbers(_in_temporal(plan), plan.rank) + levels * _numbers(_in_depth(plan), plan.rank)
        return 2.0 * _rows(plan) * numbers

    def block_weights(self, plan: StepPlan) -> int:
        """The matrices of a layer over frames."""
        sizes = _sizes(plan)
        return _layer_weights(sizes, sizes.temporal)


def groups_of(targets: tuple[str, ...]) -> set[str]:
    """The groups that these names of targets mean."""
    return {group for target in targets for group in ALIASES.get(target, (target,))}


def _stack_row_bytes(size: StackSize, plan: StepPlan, *, attentions: int, read: int, ffn: bool, adapted: int) -> int:
    """Per row of a layer: norms before and after each part; what adapters read; q, k, v, output; the feed-forward."""
    e, parts = plan.bytes_per_value, attentions + 1
    wide = 2 * parts * size.width * 4 + read * size.width * e
    attended = attentions * (4 * _inner(size) * e + 4 * size.heads)
    return wide + attended + (2 if ffn else 1) * size.hidden * e + adapted * plan.rank * e + 2 * parts * 4


def _in_temporal(plan: StepPlan) -> list[Linear]:
    sizes, groups = _sizes(plan), groups_of(plan.targets)
    size, E = sizes.temporal, sizes.source_width
    D, inner, n = size.width, _inner(size), size.layers
    found = []
    if "temporal_attention" in groups:
        found += [(D, inner, 3 * n), (inner, D, n)]
    if "cross_attention" in groups:
        found += [(D, inner, n), (E, inner, 2 * n), (inner, D, n)]
    if "ffn" in groups:
        found += [(D, size.hidden, n), (size.hidden, D, n)]
    return found


def _in_depth(plan: StepPlan) -> list[Linear]:
    if "depth" not in groups_of(plan.targets):
        return []
    size = _sizes(plan).depth
    D, inner, n = size.width, _inner(size), size.layers
    return [(D, inner, 3 * n), (inner, D, n), (D, size.hidden, n), (size.hidden, D, n)]


def _layer_weights(sizes: MagentaSpec, size: StackSize) -> int:
    attention, cross = 4 * size.width * _inner(size), 0
    if size is sizes.temporal:
        cross = 2 * (size.width + sizes.source_width) * _inner(size)
    return attention + cross + 2 * size.width * size.hidden


def _numbers(linears: list[Linear], rank: int) -> int:
    return sum(count * rank * (n_in + n_out) for n_in, n_out, count in linears)


def _inner(size: StackSize) -> int:
    return size.heads * size.head_width


def _rows(plan: StepPlan) -> int:
    return plan.batch_size * plan.frames


def _sizes(plan: StepPlan) -> MagentaSpec:
    assert isinstance(plan.spec, MagentaLMSpec)
    return plan.spec.sizes


MEMORY = MagentaMemory()
