"""How much memory a training step needs, in closed form: no torch, no model, microseconds.

Every term is counted from what the decoder, the lean adapter and the lean loss keep for the backward pass
(docs/memory.md lists them); `finetune.memory.simulate` runs the real code on the meta device and is the reference in
the tests. N is the number of rows (batch x steps), e the bytes of an activation.

What is not known here: dropout above 0, DoRA and autocast over an fp32 base take peft's own forward, which keeps more.
The allocator's share on CUDA is an assumption until it is measured.
"""

from dataclasses import dataclass

from adapters.family.memory import StepPlan, learning, memory_of
from finetune.memory.optimizer_state import state_bytes

GIB = 2**30
FRAGMENTATION = 0.06
"""Assumed: what PyTorch's CUDA allocator reserves above the peak of the activations, as a share of them."""
WORKSPACE_BYTES = 40 * 2**20
"""Assumed: cuBLAS and attention workspaces."""
CONTEXT_BYTES = 450 * 2**20
"""Assumed: what a CUDA context takes of the card outside the allocator."""


@dataclass(frozen=True)
class Predicted:
    """Bytes. `held` all the time; `kept` by the forward pass until its backward; `peak` at most, both included."""

    held: int
    kept: int
    peak: int

    @property
    def reserved(self) -> int:
        """What `torch.cuda.max_memory_reserved` should show."""
        return round(self.held + (self.peak - self.held) * (1 + FRAGMENTATION)) + WORKSPACE_BYTES

    @property
    def of_the_card(self) -> int:
        """The same with the CUDA context: what is missing from the card's free memory."""
        return self.reserved + CONTEXT_BYTES


def predict(plan: StepPlan) -> Predicted:
    """The highest of the moments at which the peak can be: the loss, the backward pass of what stands before the logits
    or of an early block, a recomputation.
    """
    memory, spec = memory_of(plan.spec), plan.spec
    held = memory.weight_bytes(plan) + 8 * learning(plan) + state_bytes(plan)
    e, rows = plan.bytes_per_value, plan.batch_size * plan.steps
    row_bytes = memory.block_rows(plan) * spec.hidden * e
    logits = rows * spec.n_codebooks * spec.card * e
    chunk = 2 * rows * spec.card * 4  # fp32 scores and probabilities of one codebook
    plain, partly = spec.layers - plan.checkpointed, min(plan.partly, spec.layers - plan.checkpointed)
    cheap, made_again = memory.cheap_bytes(plan) if partly else (0, 0)
    block, batch, widest = memory.block_bytes(plan), memory.batch_bytes(plan), memory.widest_bytes(plan)
    below = plan.checkpointed * row_bytes  # inputs of the recomputed layers
    whole = memory.whole_kept_bytes(plan)
    blocks = plain * block - partly * cheap
    before_head = whole + batch + below + blocks + row_bytes - memory.unneeded_bytes(plan)
    after, after_widest = memory.after_blocks_bytes(plan)
    at_loss = before_head + after + (2 + plan.prior) * logits + chunk
    in_after = before_head + after + after_widest
    early_backward = before_head + row_bytes + (widest if plain else 0) + (made_again if partly == plain else 0)
    recomputing = batch + below + block + widest if plan.checkpointed else 0
    peak = max(at_loss, in_after, early_backward, recomputing)
    return Predicted(held, before_head + after + logits, held + peak)
