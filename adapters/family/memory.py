"""What a family must say of its memory so that `woodshed plan` and `--memory` can fit it: sizes in closed form.

Plain numbers: no torch, no model, microseconds. The parts that are the same for every architecture (optimizer,
gradients, loss, recomputation, the allocator) are counted in `finetune.memory`.
"""

import importlib
import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from configs.errors import UserError
from configs.precisions import VALUE_BYTES, Arithmetic, BaseWeights
from data_prep.families import BUILT_IN
from data_prep.lm_spec import LMSpec

Optimizer = Literal["adamw", "adamw8bit", "paged_adamw8bit", "prodigy"]
_HOME = "adapters.family.{}.memory"
_registered: dict[str, "MemoryModel"] = {}
NF4_BLOCK, NF4_SCALE_BLOCK = 64, 256
"""QLoRA (arXiv:2305.14314, section 3): a scale per 64 weights, held in 8 bits, with an fp32 one per 256 scales."""


@dataclass(frozen=True)
class StepPlan:
    """One way to run a training step. `frames` and `text_tokens` are those of the longest batch."""

    spec: LMSpec
    weights: BaseWeights = "bf16"
    arithmetic: Arithmetic = "bf16"
    checkpointed: int = 0
    """Layers that are recomputed whole."""
    batch_size: int = 1
    frames: int = 1500
    text_tokens: int = 32
    rank: int = 16
    targets: tuple[str, ...] = ("attention", "ffn", "text_projection")
    optimizer: Optimizer = "adamw"
    ema: bool = False
    prior: int = 0
    """So many further logits beside the model's own and their gradient: what the base predicts, and for guidance what
    it predicts without conditions."""
    partly: int = 0
    """Layers beside the recomputed ones of which only norms and activation are."""
    in_front: int = 0
    """Entries that a condition of the adapter's own puts before the first step (`added_conditions.prefix`)."""

    @property
    def steps(self) -> int:
        """S: columns that the LM reads of a clip."""
        return self.spec.steps(self.frames)

    @property
    def bytes_per_value(self) -> int:
        """Of an activation."""
        return VALUE_BYTES[self.arithmetic]

    @property
    def quantised(self) -> bool:
        """Whether the base is held in 8 or 4 bits."""
        return self.weights in ("int8", "nf4")


class MemoryModel(ABC):
    """What one architecture keeps and computes. Bytes of one process; floating-point operations of one forward pass."""

    @abstractmethod
    def weight_bytes(self, plan: StepPlan) -> int:
        """The frozen base as it is held."""

    @abstractmethod
    def linears(self, plan: StepPlan) -> list[tuple[int, int, int]]:
        """(in, out, how many) of the linear layers that the targets reach."""

    @abstractmethod
    def batch_bytes(self, plan: StepPlan) -> int:
        """Codes, labels and conditions on the device, and what is made of them before the first block."""

    def block_rows(self, plan: StepPlan) -> int:
        """Rows of activations in every block: batch times steps, and what a family puts before the first step."""
        return plan.batch_size * plan.steps

    def after_blocks_bytes(self, plan: StepPlan) -> tuple[int, int]:
        """What stands between the last block and the logits keeps, and its largest temporary; most have nothing."""
        return 0, 0

    @abstractmethod
    def block_bytes(self, plan: StepPlan) -> int:
        """What one block keeps for its backward pass when it is not recomputed."""

    def cheap_bytes(self, plan: StepPlan) -> tuple[int, int]:
        """Of `block_bytes`, what a block does not keep that is recomputed in part; its widest tensor made again."""
        return 0, 0

    @abstractmethod
    def unneeded_bytes(self, plan: StepPlan) -> int:
        """What the first block keeps nothing of, because no gradient goes back behind its first adapter."""

    @abstractmethod
    def widest_bytes(self, plan: StepPlan) -> int:
        """The largest temporary of a block's backward pass, a weight that is dequantised for it included."""

    @abstractmethod
    def block_flops(self, plan: StepPlan) -> tuple[float, float]:
        """Of one block, forward: products with frozen weights, and attention."""

    @abstractmethod
    def adapter_flops(self, plan: StepPlan) -> float:
        """Of all adapted layers, forward."""

    @abstractmethod
    def block_weights(self, plan: StepPlan) -> int:
        """Numbers in one block's matrices."""

    def whole_tensors(self, plan: StepPlan) -> list[int]:
        """Numbers of each tensor that learns whole in a base that was moved (`LMSpec.learns_whole`); most have none."""
        return []

    def whole_kept_bytes(self, plan: StepPlan) -> int:
        """What these keep between the forward and the backward pass: copies in the model's own arithmetic."""
        return 0

    def narrow(self, spec: LMSpec, layers: int) -> LMSpec | None:
        """So many layers that are too narrow for their kernels to take any time; None where that cannot be made."""
        return None


def register_memory(family: str, memory: MemoryModel) -> None:
    """Let `woodshed plan` know a family that does not come with Woodshed."""
    _registered[family] = memory


def memory_of(spec: LMSpec) -> MemoryModel:
    """The memory model of a base's family.

    Raises:
        UserError: the family has none.
    """
    if spec.family in _registered:
        return _registered[spec.family]
    home = _HOME.format(spec.family)
    if spec.family not in BUILT_IN or importlib.util.find_spec(home) is None:
        raise UserError(
            f"How much memory a {spec.family} model needs cannot be predicted.",
            where="memory",
            fix="Leave --memory out and choose batch_size, accumulation and checkpointing yourself.",
        )
    return importlib.import_module(home).MEMORY


def trainable(plan: StepPlan) -> int:
    """Numbers that learn by low rank: A and B of every adapted layer."""
    return sum(count * plan.rank * (n_in + n_out) for n_in, n_out, count in memory_of(plan.spec).linears(plan))


def learning(plan: StepPlan) -> int:
    """All numbers that learn."""
    return trainable(plan) + sum(memory_of(plan.spec).whole_tensors(plan))


def packed_bytes(size: int, rows: int, weights: str) -> int:
    """One linear layer of `size` weights and `rows` outputs, as it is held."""
    if weights == "int8":
        return size + 4 * rows  # one fp32 scale per output
    if weights == "nf4":
        scales = -(-size // NF4_BLOCK)
        return (size + 1) // 2 + scales + 4 * -(-scales // NF4_SCALE_BLOCK)
    return size * VALUE_BYTES[weights]
