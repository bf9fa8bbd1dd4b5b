"""How much memory a training step needs, in closed form: no torch, no model, microseconds.

Every term is counted from what the decoder, the lean adapter and the lean loss keep for the backward pass
(docs/memory.md lists them); `finetune.memory.simulate` runs the real code on the meta device and is the reference in
the tests. N is the number of rows (batch x steps), e the bytes of an activation.

What is not known here: dropout above 0, DoRA and autocast over an fp32 base take peft's own forward, which keeps more.
The allocator's share on CUDA is an assumption until it is measured.
"""

from dataclasses import dataclass

from finetune.memory.optimizer_state import state_bytes
from finetune.memory.setup import Setup, roles, trainable

GIB = 2**30
VALUE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
NF4_BLOCK, NF4_SCALE_BLOCK = 64, 256
"""QLoRA (arXiv:2305.14314, section 3): a scale per 64 weights, held in 8 bits, with an fp32 one per 256 scales."""
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


def predict(setup: Setup) -> Predicted:
    """The highest of the three moments at which the peak can be: the loss, an early backward, a recomputation."""
    held = weight_bytes(setup) + 8 * trainable(setup) + state_bytes(setup)
    e, rows = setup.bytes_per_value, setup.batch_size * setup.steps
    row_bytes = rows * setup.shape.hidden * e
    logits = rows * setup.shape.codebooks * setup.shape.card * e
    chunk = 2 * rows * setup.shape.card * 4  # fp32 scores and probabilities of one codebook
    plain = setup.shape.layers - setup.checkpointed
    layer = layer_bytes(setup)
    below = setup.checkpointed * row_bytes  # inputs of the recomputed layers
    before_head = _batch_bytes(setup) + below + plain * layer + row_bytes - _before_first_adapter(setup)
    widest = 2 * rows * setup.shape.ffn * e + _dequantised_bytes(setup)
    at_loss = before_head + (3 if setup.prior else 2) * logits + chunk
    early_backward = before_head + row_bytes + (widest if plain else 0)
    recomputing = _batch_bytes(setup) + below + layer + widest if setup.checkpointed else 0
    return Predicted(held, before_head + logits, held + max(at_loss, early_backward, recomputing))


def weight_bytes(setup: Setup) -> int:
    """The frozen base as it is held: linear layers of the decoder's layers as `weights` says, the rest unquantised."""
    shape = setup.shape
    D, F = shape.hidden, shape.ffn
    value = VALUE_BYTES.get(setup.weights, setup.bytes_per_value)
    tables = shape.codebooks * (shape.card + 1) * D + shape.positions * D
    rest = tables + shape.codebooks * shape.card * D + 6 * D * shape.layers + 2 * D
    if shape.projected:
        rest += shape.text_width * D + D
    square = packed_bytes(D * D, D, setup.weights) * 8
    fc1, fc2 = packed_bytes(D * F, F, setup.weights), packed_bytes(D * F, D, setup.weights)
    return rest * value + shape.layers * (square + fc1 + fc2)


def packed_bytes(size: int, rows: int, weights: str) -> int:
    """One linear layer of `size` weights and `rows` outputs."""
    if weights == "int8":
        return size + 4 * rows  # one fp32 scale per output
    if weights == "nf4":
        scales = -(-size // NF4_BLOCK)
        return (size + 1) // 2 + scales + 4 * -(-scales // NF4_SCALE_BLOCK)
    return size * VALUE_BYTES[weights]


def layer_bytes(setup: Setup) -> int:
    """What one decoder layer keeps when it is not recomputed.

    Of width D: the inputs of the three norms; q, k, v and output of self-attention; q and output of cross-attention;
    the norms' outputs where an adapter reads them. Of width F: the activation's input, and its output where an
    adapter reads it. Then r numbers per adapted projection, 16-bit copies of A and B, and a few numbers per row.
    """
    shape, e = setup.shape, setup.bytes_per_value
    rows, text_rows = setup.batch_size * setup.steps, setup.batch_size * setup.text_tokens
    has = roles(setup.targets)
    reads = [{("self", p) for p in "qkv"} & has, {("cross", "q")} & has, {("ffn", "")} & has]
    wide = 3 + 4 + 2 + sum(bool(group) for group in reads)
    activation = 2 if ("ffn", "") in has else 1
    lows = len([role for role in has if role[0] != "text" and role not in (("cross", "k"), ("cross", "v"))])
    lows += ("ffn", "") in has  # fc1 and fc2
    small = rows * (3 * 2 * 4 + 2 * 4 * shape.heads)  # means and deviations of the norms, one number per row and head
    small += text_rows * (2 * shape.hidden + 2 * setup.rank) * e + rows * setup.text_tokens * e
    copies = trainable(setup) // shape.layers * e if e < 4 else 0
    return rows * (wide * shape.hidden + activation * shape.ffn + lows * setup.rank) * e + small + copies


def _before_first_adapter(setup: Setup) -> int:
    """What the first layer keeps nothing of, because no gradient goes back behind its first adapter."""
    has = roles(setup.targets)
    if setup.checkpointed or any(place == "self" for place, _ in has):
        return 0
    wide = 5 if {("text", ""), ("cross", "q"), ("cross", "k"), ("cross", "v"), ("cross", "out")} & has else 8
    return wide * setup.batch_size * setup.steps * setup.shape.hidden * setup.bytes_per_value


def _dequantised_bytes(setup: Setup) -> int:
    if setup.weights not in ("int8", "nf4"):
        return 0
    return setup.shape.hidden * setup.shape.ffn * setup.bytes_per_value


def _batch_bytes(setup: Setup) -> int:
    """Codes and labels, text states in fp32 and projected, and what attention makes of the mask."""
    shape, B = setup.shape, setup.batch_size
    text = (
        B
        * setup.text_tokens
        * (shape.text_width * (4 + setup.bytes_per_value) + 2 * shape.hidden * setup.bytes_per_value)
    )
    return 2 * B * shape.codebooks * setup.steps * 8 + text + B * setup.steps * setup.text_tokens
