"""A base's own T5: captions in, one hidden state per text token out, without padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from configs.errors import UserError
from data_prep.base_files import BaseFiles, load_tensors
from data_prep.fingerprint import fingerprint

SHARED = "shared.weight"
TIED = "encoder.embed_tokens.weight"  # the same table: a checkpoint holds one name, the other, or both


@dataclass
class TextEncoder:
    """The frozen text encoder of a base, in float32, on one device. `max_tokens` is the longest text it reads."""

    model: Any
    tokenizer: Any
    fingerprint: str
    max_tokens: int

    @classmethod
    def load(cls, files: BaseFiles, device: str | torch.device = "cpu") -> "TextEncoder":
        """Load only the text encoder's weights and the tokenizer of a base.

        Raises:
            UserError: weights or tokenizer files are incomplete.
        """
        from transformers import AutoTokenizer, T5Config, T5EncoderModel

        tensors = _tensors(files)
        config: Any = T5Config(**files.config["text_encoder"])
        loaded: Any = T5EncoderModel.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=False,
        )
        model, report = loaded
        missing = set(report["missing_keys"]) - {TIED}
        if missing or report["mismatched_keys"]:
            raise _incomplete(files, f"missing {sorted(missing)[:3]} …")
        try:
            tokenizer = AutoTokenizer.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise _incomplete(files, f"the tokenizer does not load: {error}") from error
        # A tokenizer without a limit of its own reports an astronomically large one.
        limit = min(tokenizer.model_max_length, getattr(config, "n_positions", None) or 512)
        return cls(model.to(device).eval().requires_grad_(False), tokenizer, fingerprint(tensors), limit)

    @property
    def width(self) -> int:
        """D_text."""
        return self.model.config.d_model

    def is_too_long(self, caption: str) -> bool:
        """Whether only the caption's beginning can be encoded."""
        return len(self.tokenizer(caption, verbose=False).input_ids) > self.max_tokens

    @torch.inference_mode()
    def encode(self, captions: Sequence[str]) -> list[Float[Tensor, "_ D"]]:
        """The states [L, D_text] of each caption, on the CPU. Those of one token count make one batch."""
        tokens = [self.tokenizer(c, truncation=True, max_length=self.max_tokens).input_ids for c in captions]
        batches: dict[int, list[int]] = {}
        for index, ids in enumerate(tokens):
            batches.setdefault(len(ids), []).append(index)
        states: dict[int, Tensor] = {}
        device = next(self.model.parameters()).device
        for indices in batches.values():
            batch = torch.tensor([tokens[i] for i in indices], device=device)  # [B, L]
            found = self.model(input_ids=batch).last_hidden_state.to("cpu")  # [B, L, D_text]
            states.update(zip(indices, found.unbind(), strict=True))
        return [states[index].clone() for index in range(len(captions))]


def load(files: BaseFiles, device: str | torch.device = "cpu") -> TextEncoder:
    """The encoder of a base; see `data_prep.text_encoders.port`."""
    return TextEncoder.load(files, device)


def text_encoder_fingerprint(files: BaseFiles) -> str:
    """The fingerprint of a base's text encoder, without loading it as a model."""
    return fingerprint(_tensors(files))


def _tensors(files: BaseFiles) -> dict[str, Tensor]:
    tensors = load_tensors(files, "text_encoder")
    table = tensors.pop(TIED, None)
    if SHARED not in tensors and table is not None:
        tensors[SHARED] = table
    return tensors


def _incomplete(files: BaseFiles, what: str) -> UserError:
    return UserError(
        "The base's text encoder is incomplete.",
        where=f"{files.folder}: {what}",
        fix="Fetch the base again, or copy the folder again.",
    )
