"""What an LM expects next while it is given the music: losses, and how far an adapter moves the base's predictions.

No piece is played for this, so it costs one forward pass a piece: the cheap measures of the grid. The only file here
that calls the LM itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int16
from torch import Tensor

from adapters.conditions import Conditions, batch_conditions
from adapters.family.lm import LM
from adapters.family.load import load_lm
from adapters.lora import attach_updates, detach, disabled
from adapters.low_rank import LowRank
from data_prep.base_files import BaseFiles
from data_prep.device import pick_device
from data_prep.lm_spec import TEXT
from data_prep.text_encoders.port import load_text_encoder
from finetune.loss import codebook_counts, codebook_sums
from finetune.prior import divergence_sums


@dataclass(frozen=True)
class Heard:
    """Music to be given, and the words it is given with; empty words are the null condition."""

    codes: Int16[np.ndarray, "K T"]
    words: str


class Teacher:
    """A base in memory, asked with and without adapters."""

    def __init__(self, files: BaseFiles, device: str = "auto") -> None:
        self.device = pick_device(device)
        on_gpu = self.device.type == "cuda"
        self.lm: LM = load_lm(files, weights="bf16" if on_gpu else "fp32", device=self.device)
        self._encoder = load_text_encoder(files, self.device)
        self._states: dict[str, Tensor] = {}

    def losses(
        self, heard: Sequence[Heard], updates: Mapping[str, LowRank] | None = None, strength: float = 1.0
    ) -> Float[np.ndarray, " N"]:
        """Mean cross-entropy per token of each piece, in nats, over all codebooks."""
        return self._each(heard, updates, strength, self._loss)

    def divergence(
        self, heard: Sequence[Heard], updates: Mapping[str, LowRank], strength: float = 1.0
    ) -> Float[np.ndarray, " N"]:
        """Mean KL(base ‖ adapted) per token of each piece, in nats; zero exactly where the adapter changes nothing."""
        return self._each(heard, updates, strength, self._divergence)

    @torch.no_grad()
    def _each(
        self, heard: Sequence[Heard], updates: Mapping[str, LowRank] | None, strength: float, measure
    ) -> np.ndarray:
        self._encode([one.words for one in heard])
        if updates is not None:
            attach_updates(self.lm, dict(updates), strength)
        try:
            return np.array([measure(one) for one in heard], dtype=np.float64)
        finally:
            if updates is not None:
                detach(self.lm)

    def _loss(self, one: Heard) -> float:
        inputs, labels = self._given(one)
        logits = self.lm(inputs, self._conditions(one))
        return float(codebook_sums(logits, labels).sum() / codebook_counts(labels).sum())

    def _divergence(self, one: Heard) -> float:
        inputs, labels = self._given(one)
        adapted = self.lm(inputs, self._conditions(one))
        with disabled(self.lm):
            base = self.lm(inputs, self._conditions(one))
        return float(divergence_sums(adapted, base, labels).sum() / codebook_counts(labels).sum())

    def _given(self, one: Heard) -> tuple[Tensor, Tensor]:
        codes = torch.from_numpy(one.codes.astype(np.int64))[None].to(self.device)  # [1, K, T]
        n_frames = torch.tensor([codes.shape[2]], device=self.device)
        return self.lm.inputs_and_labels(codes, n_frames)

    def _conditions(self, one: Heard) -> Conditions:
        row = {TEXT: self._states[one.words]} if one.words else {}
        return batch_conditions([row], self.lm.spec).to(self.device)

    def _encode(self, texts: Sequence[str]) -> None:
        missing = [text for text in dict.fromkeys(texts) if text and text not in self._states]
        if missing:
            states = self._encoder.encode(missing)
            self._states |= {text: state.cpu() for text, state in zip(missing, states, strict=True)}
