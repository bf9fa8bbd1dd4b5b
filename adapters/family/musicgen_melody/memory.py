"""What a melody decoder keeps during a training step: as MusicGen's, without cross-attention, with longer rows.

N is the number of rows (batch x (melody entries + text entries + steps)), e the bytes of an activation, D the hidden
size, F the feed-forward's. `finetune.memory.simulate` runs the real code on the meta device and is the reference in the
tests.
"""

from adapters.family.memory import MemoryModel, StepPlan, packed_bytes, trainable
from adapters.family.musicgen.memory import roles as musicgen_roles
from adapters.family.musicgen_melody.format import MelodySpec
from configs.precisions import VALUE_BYTES

MELODY_TARGET = "melody_projection"


class MelodyMemory(MemoryModel):
    """Self-attention over prefix and steps, and a feed-forward in every block."""

    def block_rows(self, plan: StepPlan) -> int:
        """The prefix goes through every block."""
        return plan.batch_size * (_prefix(plan) + plan.steps)

    def weight_bytes(self, plan: StepPlan) -> int:
        """Linear layers of the blocks as `weights` says, the rest unquantised."""
        spec = _spec(plan)
        D, F, K = spec.hidden, spec.ffn, spec.n_codebooks
        value = VALUE_BYTES.get(plan.weights, plan.bytes_per_value)
        rest = K * (spec.card + 1) * D + spec.positions * D + K * spec.card * D + 4 * D * spec.layers + 2 * D
        rest += (spec.text_width + 1) * D * spec.projected + (spec.melody.width + 1) * D
        square = packed_bytes(D * D, D, plan.weights) * 4
        fc1, fc2 = packed_bytes(D * F, F, plan.weights), packed_bytes(D * F, D, plan.weights)
        return rest * value + spec.layers * (square + fc1 + fc2)

    def linears(self, plan: StepPlan) -> list[tuple[int, int, int]]:
        """Square ones of self-attention, the two of the feed-forward, the projections of text and melody."""
        spec, has = _spec(plan), roles(plan.targets)
        D, F = spec.hidden, spec.ffn
        found = [(D, D, sum(place == "self" for place, _ in has) * spec.layers)]
        if ("ffn", "") in has:
            found += [(D, F, spec.layers), (F, D, spec.layers)]
        if ("text", "") in has and spec.projected:
            found.append((spec.text_width, D, 1))
        if ("melody", "") in has:
            found.append((spec.melody.width, D, 1))
        return [entry for entry in found if entry[2]]

    def batch_bytes(self, plan: StepPlan) -> int:
        """Codes and labels, text states and chroma in fp32, and the prefix made of them."""
        spec, B, L, e = _spec(plan), plan.batch_size, plan.text_tokens, plan.bytes_per_value
        given = B * (L * spec.text_width + spec.melody_entries * spec.melody.width) * (4 + e)
        return 2 * B * spec.n_codebooks * plan.steps * 8 + given + B * _prefix(plan) * spec.hidden * e

    def block_bytes(self, plan: StepPlan) -> int:
        """What one decoder layer keeps.

        Of width D: the inputs of the two norms; q, k, v and output of self-attention; the norms' outputs where an
        adapter reads them. Of width F: the activation's input, and its output where an adapter reads it.
        """
        spec, e, rows = plan.spec, plan.bytes_per_value, self.block_rows(plan)
        has = roles(plan.targets)
        reads = [{("self", part) for part in "qkv"} & has, {("ffn", "")} & has]
        wide = 2 + 4 + sum(bool(group) for group in reads)
        activation = 2 if ("ffn", "") in has else 1
        lows = sum(place == "self" for place, _ in has) + 2 * (("ffn", "") in has)
        small = rows * (2 * 2 * 4 + 4 * spec.heads)
        copies = trainable(plan) // spec.layers * e if e < 4 else 0
        return rows * (wide * spec.hidden + activation * spec.ffn + lows * plan.rank) * e + small + copies

    def cheap_bytes(self, plan: StepPlan) -> tuple[int, int]:
        """The norms' outputs and the activation's, where an adapter reads them."""
        spec, has = _spec(plan), roles(plan.targets)
        row = self.block_rows(plan) * plan.bytes_per_value
        ffn = ("ffn", "") in has
        reads = [bool({("self", part) for part in "qkv"} & has), ffn]
        return row * (sum(reads) * spec.hidden + ffn * spec.ffn), row * (spec.ffn if ffn else spec.hidden)

    def unneeded_bytes(self, plan: StepPlan) -> int:
        """Up to the first projection that learns; an adapter on what makes the prefix needs all behind it."""
        has = roles(plan.targets)
        if plan.checkpointed or any(place in ("self", "text", "melody") for place, _ in has):
            return 0
        return 5 * self.block_rows(plan) * plan.spec.hidden * plan.bytes_per_value

    def widest_bytes(self, plan: StepPlan) -> int:
        """Two tensors of the feed-forward's width."""
        e, spec = plan.bytes_per_value, plan.spec
        dequantised = spec.hidden * spec.ffn * e if plan.quantised else 0
        return 2 * self.block_rows(plan) * spec.ffn * e + dequantised

    def block_flops(self, plan: StepPlan) -> tuple[float, float]:
        """Self-attention is causal over prefix and steps."""
        D, F, length = plan.spec.hidden, plan.spec.ffn, _prefix(plan) + plan.steps
        return 2.0 * self.block_rows(plan) * (4 * D * D + 2 * D * F), plan.batch_size * 2.0 * length * length * D

    def adapter_flops(self, plan: StepPlan) -> float:
        """What makes the prefix has few rows and is left out."""
        spec, has = plan.spec, roles(plan.targets)
        square = sum(place == "self" for place, _ in has)
        widths = square * 2 * spec.hidden + (2 * (spec.hidden + spec.ffn) if ("ffn", "") in has else 0)
        return 2.0 * self.block_rows(plan) * spec.layers * plan.rank * widths

    def block_weights(self, plan: StepPlan) -> int:
        """Four square matrices and the feed-forward's two."""
        return 4 * plan.spec.hidden**2 + 2 * plan.spec.hidden * plan.spec.ffn


def roles(targets: tuple[str, ...]) -> set[tuple[str, str]]:
    """What these groups of targets reach in a layer, and before the first."""
    plain = tuple(target for target in targets if target != MELODY_TARGET)
    found = {(place, part) for place, part in musicgen_roles(plain) if place != "cross"}
    return found | ({("melody", "")} if MELODY_TARGET in targets else set())


def _prefix(plan: StepPlan) -> int:
    return _spec(plan).melody_entries + plan.text_tokens


def _spec(plan: StepPlan) -> MelodySpec:
    assert isinstance(plan.spec, MelodySpec)
    return plan.spec


MEMORY = MelodyMemory()
