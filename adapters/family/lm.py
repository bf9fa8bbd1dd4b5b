"""What every language model here has in common, whatever its architecture: frozen, in eval, codes in and logits out.

A family's LM is a subclass under the module names of its published checkpoint. It holds what training needs and no
more: no text encoder, no codec. It never computes a loss.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from adapters.conditions import Conditions
from adapters.pattern import Pattern
from adapters.pattern_names import pattern_of
from data_prep.lm_spec import LMSpec

if TYPE_CHECKING:
    from adapters.added_conditions.attach import AddedConditions

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class LM(nn.Module):
    """The trained part of a text-to-music model.

    `levels_at_once` codebooks of a column are predicted from the columns before alone: all K of them, or 1 where a
    depth decoder predicts level after level, each knowing those before.
    """

    spec: LMSpec
    levels_at_once: int
    added: "AddedConditions | None"
    """What an adapter adds to the decoder's input (`adapters.added_conditions`)."""
    is_loaded_in_8bit: bool = False  # these two names tell peft which of its layer classes to use
    is_loaded_in_4bit: bool = False

    def __init__(self, spec: LMSpec) -> None:
        super().__init__()
        self.spec = spec
        self.added = None
        self.pattern: Pattern = pattern_of(spec)
        self.levels_at_once = spec.n_codebooks

    @property
    def n_codebooks(self) -> int:
        """K."""
        return self.spec.n_codebooks

    @property
    def card(self) -> int:
        """Codebook size."""
        return self.spec.card

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The layers that can be recomputed in the backward pass, in order: `spec.layers` of them."""

    def cheap_modules(self, block: nn.Module) -> Sequence[nn.Module]:
        """Modules of a block whose output is quickly made again, `[…] -> […]`, from an input that is kept anyway."""
        return []

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Of everything that is not quantised, and of the arithmetic outside autocast."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the weights are."""

    def code_tables(self) -> Float[Tensor, "K card D"] | None:
        """The vectors that codes are read as; None where conditions cannot be added to the decoder's input."""
        return None

    @abstractmethod
    def forward(self, inputs: Int[Tensor, "B K S"], conditions: Conditions) -> Float[Tensor, "B K S card"]:
        """Teacher-forced logits of the codes that `inputs_and_labels` asks for. Each row has its own conditions."""

    def inputs_and_labels(
        self, codes: Int[Tensor, "B K T"], n_frames: Int[Tensor, " B"]
    ) -> tuple[Int[Tensor, "B K S"], Int[Tensor, "B K S"]]:
        """What `forward` reads of a padded batch, and the codes that its logits should predict (`IGNORE`: none)."""
        return self.pattern.inputs_and_labels(codes, n_frames, self.spec.special)

    def next_logits(
        self, columns: Int[Tensor, "B K S"], begun: Int[Tensor, "B k"], conditions: Conditions
    ) -> Float[Tensor, "B n card"]:
        """Logits of the next `levels_at_once` codes of the column behind `columns`, whose first k codes are known.

        The slow way, through the whole sequence: what the engines are compared with.
        """
        assert begun.shape[1] == 0, "all codes of a column are predicted at once"
        return self(columns, conditions)[:, :, -1]

    def train(self, mode: bool = True) -> "LM":
        """Switch an adapter's dropout on or off; the base itself has none and stays in eval."""
        super().train(False)
        self.training = mode
        for module in self.modules():
            if isinstance(module, nn.Dropout) or hasattr(module, "lora_dropout"):
                module.training = mode
        return self


def default_compute_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the GPU has it, fp16 on other GPUs, fp32 on a CPU."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
