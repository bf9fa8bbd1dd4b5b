"""MusicGen without its text encoder and codec: the decoder and the text projection, which is all that training needs.

Modules carry the names they have in the full `MusicgenForConditionalGeneration` (`decoder.…`, `enc_to_dec_proj`), so
that an adapter attached here names the modules that plain peft finds there. Logits equal the full model's: the same
decoder code runs, with the same projection and masking before it.

Everything held here is frozen and stays in eval: no dropout but an adapter's own. It never computes a loss.
"""

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import MusicgenConfig, MusicgenForCausalLM

from adapters.quantize import quantized_linear
from configs.errors import UserError
from data_prep.base_files import load_tensors

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles

Weights = Literal["fp32", "bf16", "fp16", "int8", "nf4"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LM_PREFIXES = ("decoder.", "enc_to_dec_proj.")
"""Of a MusicGen checkpoint, what belongs to the LM; the rest is text encoder and codec."""


@dataclass(frozen=True)
class Conditions:
    """What the music should follow, for a batch. A row whose mask is all false has the null condition.

    A base that hears a melody takes it as `chroma`; the text-to-music bases take none.
    """

    text_states: Float[Tensor, "B L D_text"]
    text_mask: Bool[Tensor, "B L"]
    chroma: Float[Tensor, "B F n_chroma"] | None = None

    @staticmethod
    def null(n_clips: int, width: int, device: torch.device | str = "cpu") -> "Conditions":
        """No condition at all: what guidance compares with."""
        mask = torch.zeros(n_clips, 1, dtype=torch.bool, device=device)
        return Conditions(torch.zeros(n_clips, 1, width, device=device), mask)

    def dropped(self, rows: Bool[Tensor, " B"]) -> "Conditions":
        """The same with the null condition in these rows."""
        return replace(self, text_mask=self.text_mask & ~rows[:, None].to(self.text_mask.device))

    def to(self, device: torch.device | str) -> "Conditions":
        """The same on a device."""
        chroma = None if self.chroma is None else self.chroma.to(device)
        return Conditions(self.text_states.to(device), self.text_mask.to(device), chroma)


class MusicgenLM(nn.Module):
    """The trained part of MusicGen: codes and conditions in, next-code logits out.

    `enc_to_dec_proj` exists exactly when the full model has it: the text encoder's width differs from the decoder's
    and the decoder does not take the text's width as it is. `train()` reaches only an adapter's dropout.
    """

    decoder: MusicgenForCausalLM
    enc_to_dec_proj: nn.Linear | None
    is_loaded_in_8bit: bool = False  # these two names tell peft which of its layer classes to use
    is_loaded_in_4bit: bool = False

    def __init__(self, config: MusicgenConfig) -> None:
        super().__init__()
        decoder_config = copy.deepcopy(config.decoder)
        for name in ("dropout", "attention_dropout", "activation_dropout", "layerdrop"):
            setattr(decoder_config, name, 0.0)
        decoder_config.use_cache = False  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        self.decoder = MusicgenForCausalLM._from_config(decoder_config)
        hidden: int = config.decoder.hidden_size  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        self.text_width: int = config.text_encoder.hidden_size  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        takes_text_width = self.decoder.config.cross_attention_hidden_size is not None
        projected = self.text_width != hidden and not takes_text_width
        self.enc_to_dec_proj = nn.Linear(self.text_width, hidden) if projected else None
        self.requires_grad_(False)
        self.eval()

    @property
    def n_codebooks(self) -> int:
        """K."""
        return self.decoder.config.num_codebooks

    @property
    def channels(self) -> int:
        """1 (mono) or 2 (stereo): decides the delays."""
        return self.decoder.config.audio_channels

    @property
    def card(self) -> int:
        """Codebook size; also the id of the special token."""
        return self.decoder.config.vocab_size

    @property
    def dtype(self) -> torch.dtype:
        """Of everything that is not quantised, and of the arithmetic outside autocast."""
        return self.decoder.model.decoder.layer_norm.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.model.decoder.layer_norm.weight.device

    def train(self, mode: bool = True) -> "MusicgenLM":
        """Switch an adapter's dropout on or off; the base itself has none and stays in eval."""
        super().train(False)
        self.training = mode
        for module in self.modules():
            if isinstance(module, nn.Dropout) or hasattr(module, "lora_dropout"):
                module.training = mode
        return self

    def forward(self, inputs: Int[Tensor, "B K S"], conditions: Conditions) -> Float[Tensor, "B K S card"]:
        """Logits of the code that follows each step. Every row may have its own condition, or none."""
        states, attend = self.project(conditions)
        flat = inputs.reshape(-1, inputs.shape[2])  # [B * K, S]
        out = self.decoder(
            input_ids=flat,  # pyright: ignore[reportArgumentType]
            encoder_hidden_states=states,  # pyright: ignore[reportArgumentType]
            encoder_attention_mask=attend,  # pyright: ignore[reportArgumentType]
            use_cache=False,
        )
        return out.logits.view(*inputs.shape, -1)  # [B, K, S, card]

    def project(self, conditions: Conditions) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
        """What cross-attention reads: projected states, zero where masked, and the mask to attend with.

        A row that is masked altogether attends to its zeros: without bias their keys and values are zero, so the
        layer adds nothing, which is what the full model gives, and no softmax runs over nothing.
        """
        if conditions.chroma is not None:
            raise ValueError("this base follows text only: it has no place for a melody")
        states = conditions.text_states.to(self.dtype)
        if self.enc_to_dec_proj is not None:
            states = self.enc_to_dec_proj(states)
        mask = conditions.text_mask
        return states * mask[..., None], mask | ~mask.any(dim=1, keepdim=True)


def load_lm(
    files: "BaseFiles",
    *,
    weights: Weights = "fp32",
    device: torch.device | str = "cpu",
    compute_dtype: torch.dtype | None = None,
) -> MusicgenLM:
    """Load the decoder and the text projection, one tensor at a time: never more than the result and one tensor.

    int8 and nf4 quantise the linear layers inside the decoder's layers; embeddings, norms, heads and the projection
    are in `compute_dtype` then (default: bf16 or fp16 on a GPU, fp32 on a CPU).

    Raises:
        UserError: a tensor is missing, unexpected, or has another shape than the configuration says.
    """
    device = torch.device(device)
    with torch.device("meta"):
        lm = MusicgenLM(files.config)
    mapped = load_tensors(files, "")  # names of all; only what is touched is read from disk
    tensors = {name: tensor for name, tensor in mapped.items() if name.startswith(LM_PREFIXES)}
    del mapped
    _check_partition(lm, tensors, str(files.folder))
    dtype = DTYPES.get(weights) or compute_dtype or default_compute_dtype(device)
    for name in list(tensors):
        tensor = tensors.pop(name)
        if weights in ("int8", "nf4") and _is_layer_linear(name):
            _replace(lm, name.removesuffix(".weight"), quantized_linear(tensor.float(), weights, device, dtype))
        else:
            _assign(lm, name, tensor.to(device, dtype, copy=True))
    _make_positions(lm, device, dtype)
    lm.__dict__.update(is_loaded_in_8bit=weights == "int8", is_loaded_in_4bit=weights == "nf4")
    return lm.eval()


def default_compute_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the GPU has it, fp16 on other GPUs, fp32 on a CPU."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def enable_checkpointing(lm: MusicgenLM, layers: int | Literal["all"] = "all") -> None:
    """Recompute the activations of the first `layers` decoder layers in the backward pass; the others keep theirs.

    Each recomputed layer costs one more forward pass of itself. Can be called again with another number; 0 undoes it.
    transformers' own switch is not used: it acts in training mode only, and the base stays in eval.
    """
    stack = lm.decoder.model.decoder.layers
    first = len(stack) if layers == "all" else layers
    for number, layer in enumerate(stack):
        layer.__dict__.pop("forward", None)
        if number < first:
            layer.__dict__["forward"] = _recomputed(layer)


def _recomputed(layer: nn.Module):
    plain = type(layer).forward

    def forward(*args, **kwargs):
        if not torch.is_grad_enabled():
            return plain(layer, *args, **kwargs)
        return checkpoint(plain, layer, *args, use_reentrant=False, **kwargs)

    return forward


def _check_partition(lm: MusicgenLM, tensors: dict[str, Tensor], where: str) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in lm.state_dict().items()}
    problems = [f"missing: {name}" for name in sorted(expected.keys() - tensors.keys())]
    problems += [f"unexpected: {name}" for name in sorted(tensors.keys() - expected.keys())]
    for name in sorted(expected.keys() & tensors.keys()):
        got = tuple(tensors[name].shape)
        if got != expected[name]:
            problems.append(f"{name}: shape {list(got)}, the configuration says {list(expected[name])}")
    if problems:
        more = f"\n  and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise UserError(
            "The base's weights do not fit its config.json:\n  " + "\n  ".join(problems[:8]) + more,
            where=where,
            fix="Fetch or export the base again: its config.json and its weights are from different models.",
        )


def _is_layer_linear(name: str) -> bool:
    return ".layers." in name and name.endswith(("_proj.weight", ".fc1.weight", ".fc2.weight"))


def _assign(lm: MusicgenLM, name: str, tensor: Tensor) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(lm.get_submodule(parent), leaf, nn.Parameter(tensor, requires_grad=False))


def _replace(lm: MusicgenLM, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(lm.get_submodule(parent), leaf, module)


def _make_positions(lm: MusicgenLM, device: torch.device, dtype: torch.dtype) -> None:
    """The sinusoidal table is computed, not stored: made in fp32 on the CPU, as the full model's, then cast."""
    positions = lm.decoder.model.decoder.embed_positions
    table = positions.get_embedding(positions.num_positions, positions.embedding_dim)
    positions.register_buffer("weights", table.to(device, dtype), persistent=False)
