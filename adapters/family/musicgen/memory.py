"""What a MusicGen decoder keeps during a training step, counted from its layers (docs/memory.md lists the terms).

N is the number of rows (batch x steps), e the bytes of an activation, D the hidden size, F the feed-forward's.
`finetune.memory.simulate` runs the real code on the meta device and is the reference in the tests.

What is not known here: dropout above 0, DoRA and autocast over an fp32 base take peft's own forward, which keeps more.
"""

from dataclasses import replace

from adapters.family.memory import MemoryModel, StepPlan, packed_bytes, trainable
from adapters.family.musicgen.format import MusicgenSpec
from configs.precisions import VALUE_BYTES
from data_prep.lm_spec import LMSpec
from data_prep.move import CODES, WORDS

Role = tuple[str, str]
"""(place, projection): ("self", "q") …, ("cross", "out"), ("ffn", ""), ("text", "")."""
READS_TEXT = {("cross", "k"), ("cross", "v"), ("text", "")}
"""Projections of the text's few rows, once per batch."""


class MusicgenMemory(MemoryModel):
    """Self-attention, cross-attention to text and a feed-forward in every block."""

    def block_rows(self, plan: StepPlan) -> int:
        """A prefix goes through every block."""
        return plan.batch_size * (plan.in_front + plan.steps)

    def weight_bytes(self, plan: StepPlan) -> int:
        """Linear layers of the blocks as `weights` says, the rest unquantised."""
        spec = _spec(plan)
        D, F, K = spec.hidden, spec.ffn, spec.n_codebooks
        value = VALUE_BYTES.get(plan.weights, plan.bytes_per_value)
        rest = spec.positions * D + 6 * D * spec.layers + 2 * D
        if CODES not in spec.learns_whole:
            rest += K * (spec.card + 1) * D + K * spec.card * D
        if spec.projected and WORDS not in spec.learns_whole:
            rest += spec.text_width * D + D
        square = packed_bytes(D * D, D, plan.weights) * 8
        fc1, fc2 = packed_bytes(D * F, F, plan.weights), packed_bytes(D * F, D, plan.weights)
        return rest * value + spec.layers * (square + fc1 + fc2)

    def linears(self, plan: StepPlan) -> list[tuple[int, int, int]]:
        """Square ones of both attentions, the two of the feed-forward, the text projection."""
        spec, has = _spec(plan), roles(plan.targets)
        D, F = spec.hidden, spec.ffn
        square = sum(place in ("self", "cross") for place, _ in has)
        found = [(D, D, square * spec.layers)]
        if ("ffn", "") in has:
            found += [(D, F, spec.layers), (F, D, spec.layers)]
        if ("text", "") in has and spec.projected and WORDS not in spec.learns_whole:
            found.append((spec.text_width, D, 1))
        return [entry for entry in found if entry[2]]

    def batch_bytes(self, plan: StepPlan) -> int:
        """Codes and labels, text states in fp32 and projected, and what attention makes of the mask. A prefix: its
        codes, vectors and entries in fp32, the input behind it, and a mask of all places, as numbers in every layer.
        """
        spec, B, L, e = plan.spec, plan.batch_size, plan.text_tokens, plan.bytes_per_value
        text = B * L * (spec.text_width * (4 + e) + 2 * spec.hidden * e)
        before = 0
        if plan.in_front:
            places = plan.in_front + plan.steps
            entries = plan.frames * spec.n_codebooks * 8 + 3 * plan.in_front * spec.hidden * 4
            before = B * (entries + places * spec.hidden * e + places * places)
        return 2 * B * spec.n_codebooks * plan.steps * 8 + text + self.block_rows(plan) * L + before

    def block_bytes(self, plan: StepPlan) -> int:
        """What one decoder layer keeps.

        Of width D: the inputs of the three norms; q, k, v and output of self-attention; q and output of
        cross-attention; the norms' outputs where an adapter reads them. Of width F: the activation's input, and its
        output where an adapter reads it. Then r numbers per adapted projection, 16-bit copies of A and B, and a few
        numbers per row.
        """
        spec, e = plan.spec, plan.bytes_per_value
        rows, text_rows = self.block_rows(plan), plan.batch_size * plan.text_tokens
        has = roles(plan.targets)
        reads = [{("self", p) for p in "qkv"} & has, {("cross", "q")} & has, {("ffn", "")} & has]
        wide = 3 + 4 + 2 + sum(bool(group) for group in reads)
        activation = 2 if ("ffn", "") in has else 1
        lows = len(has - READS_TEXT) + (("ffn", "") in has)  # fc1 and fc2
        small = rows * (3 * 2 * 4 + 2 * 4 * spec.heads)  # means and deviations of the norms, a number per row and head
        small += text_rows * (2 * spec.hidden + 2 * plan.rank) * e + rows * plan.text_tokens * e
        copies = trainable(plan) // spec.layers * e if e < 4 else 0
        return rows * (wide * spec.hidden + activation * spec.ffn + lows * plan.rank) * e + small + copies

    def cheap_bytes(self, plan: StepPlan) -> tuple[int, int]:
        """The norms' outputs and the activation's, where an adapter reads them."""
        spec, has = _spec(plan), roles(plan.targets)
        row = self.block_rows(plan) * plan.bytes_per_value
        ffn = ("ffn", "") in has
        reads = [bool({("self", part) for part in "qkv"} & has), ("cross", "q") in has, ffn]
        return row * (sum(reads) * spec.hidden + ffn * spec.ffn), row * (spec.ffn if ffn else spec.hidden)

    def unneeded_bytes(self, plan: StepPlan) -> int:
        """Up to the first projection that learns."""
        has = roles(plan.targets)
        if CODES in plan.spec.learns_whole or plan.in_front:  # the gradient goes back behind the first block
            return 0
        if plan.checkpointed or any(place == "self" for place, _ in has):
            return 0
        wide = 5 if {("text", ""), ("cross", "q"), ("cross", "k"), ("cross", "v"), ("cross", "out")} & has else 8
        return wide * plan.batch_size * plan.steps * plan.spec.hidden * plan.bytes_per_value

    def widest_bytes(self, plan: StepPlan) -> int:
        """Two tensors of the feed-forward's width."""
        e, spec = plan.bytes_per_value, plan.spec
        dequantised = spec.hidden * spec.ffn * e if plan.quantised else 0
        return 2 * self.block_rows(plan) * spec.ffn * e + dequantised

    def block_flops(self, plan: StepPlan) -> tuple[float, float]:
        """Cross-attention reads the text once per layer; self-attention is causal, so half of 4 S² D."""
        D, F, S = plan.spec.hidden, plan.spec.ffn, plan.in_front + plan.steps
        rows, text_rows = plan.batch_size * S, plan.batch_size * plan.text_tokens
        linear = 2.0 * rows * (6 * D * D + 2 * D * F) + 2 * text_rows * 2 * D * D
        return linear, plan.batch_size * (2.0 * S * S * D + 4 * S * plan.text_tokens * D)

    def adapter_flops(self, plan: StepPlan) -> float:
        """What reads the text has few rows and is left out."""
        spec, has = plan.spec, roles(plan.targets)
        square = len([role for role in has - READS_TEXT if role[0] in ("self", "cross")])
        widths = square * 2 * spec.hidden + (2 * (spec.hidden + spec.ffn) if ("ffn", "") in has else 0)
        return 2.0 * self.block_rows(plan) * spec.layers * plan.rank * widths

    def block_weights(self, plan: StepPlan) -> int:
        """Eight square matrices and the feed-forward's two."""
        return 8 * plan.spec.hidden**2 + 2 * plan.spec.hidden * plan.spec.ffn

    def whole_tensors(self, plan: StepPlan) -> list[int]:
        """Tables and heads of the codes, the text projection and its bias."""
        spec, found = plan.spec, []
        if CODES in spec.learns_whole:
            found += [(spec.card + 1) * spec.hidden, spec.card * spec.hidden] * spec.n_codebooks
        return found + ([spec.text_width * spec.hidden, spec.hidden] if WORDS in spec.learns_whole else [])

    def whole_kept_bytes(self, plan: StepPlan) -> int:
        """The heads' weights; the projection's are few."""
        spec, e = plan.spec, plan.bytes_per_value
        return spec.n_codebooks * spec.card * spec.hidden * e if CODES in spec.learns_whole and e < 4 else 0

    def narrow(self, spec: LMSpec, layers: int) -> LMSpec:
        """Four heads of eight numbers."""
        return replace(spec, layers=layers, heads=4, hidden=32, ffn=64, card=32, positions=64)


def roles(targets: tuple[str, ...]) -> set[Role]:
    """What these groups of targets reach in a layer, and before the first."""
    return {role for target in targets for role in _roles_of(target)}


def _roles_of(target: str) -> set[Role]:
    everywhere, projections = ("self", "cross"), ("q", "k", "v", "out")
    if target in ("ffn", "text_projection"):
        return {("ffn" if target == "ffn" else "text", "")}
    if target in projections:
        return {(place, target) for place in everywhere}
    places = {"self_attention": ("self",), "cross_attention": ("cross",)}.get(target, everywhere)
    return {(place, projection) for place in places for projection in projections}


def _spec(plan: StepPlan) -> MusicgenSpec:
    assert isinstance(plan.spec, MusicgenSpec)
    return plan.spec


MEMORY = MusicgenMemory()
