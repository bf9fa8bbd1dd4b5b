"""What an LM expects next while it is given the music: losses, and how far an adapter moves the base's predictions.

No piece is played for this, so it costs one forward pass a piece: the cheap measures of the grid. The only file here
that calls the LM itself.

An adapter that moves its base to another pattern or text encoder is compared with the base as it was published, which
reads the same music in its own pattern and the words by its own encoder, code by code.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from adapters.conditions import Conditions, batch_conditions
from adapters.family.lm import LM
from adapters.family.load import load_lm
from adapters.lora import attach_updates, detach, disabled
from adapters.low_rank import LowRank
from adapters.whole_weights.layers import install
from data_prep.base_files import BaseFiles
from data_prep.device import pick_device
from data_prep.lm_spec import TEXT
from data_prep.text_encoders.port import TextEncoder, load_text_encoder
from finetune.loss import codebook_counts, codebook_sums
from finetune.prior import divergence_sums

KEPT_BYTES = 512 * 2**20
"""So much of what the base expects is kept: twelve pieces of 10 s of a mono MusicGen are 200 MB."""


@dataclass(frozen=True)
class Heard:
    """Music to be given, and the words it is given with; empty words are the null condition."""

    codes: Int[np.ndarray, "K T"]
    words: str


class _Side:
    """A model with its text encoder, and the states of the words that were asked for."""

    def __init__(self, files: BaseFiles, device: torch.device) -> None:
        weights = "bf16" if device.type == "cuda" else "fp32"
        self.lm: LM = load_lm(files, weights=weights, device=device)
        self.device = device
        self._encoder: TextEncoder = load_text_encoder(files, device)
        self._states: dict[str, Tensor] = {}

    def logits(self, one: Heard) -> tuple[Float[Tensor, "1 K S card"], Int[Tensor, "1 K S"]]:
        """What it expects, and what there is."""
        codes = self.codes(one)
        inputs, labels = self.lm.inputs_and_labels(codes, torch.tensor([codes.shape[2]], device=self.device))
        return self.lm(inputs, self._conditions(one)), labels

    def by_frame(self, one: Heard) -> Float[Tensor, "1 K T card"]:
        """The logits of each code by its frame, whatever the pattern."""
        logits, _ = self.logits(one)
        step = self.lm.pattern.step_of_frame(self.codes(one).shape[2], self.device) - 1  # [K, T]
        return logits.gather(2, step[None, :, :, None].expand(1, -1, -1, logits.shape[3]))

    def codes(self, one: Heard) -> Int[Tensor, "1 K T"]:
        """As many of its frames as the pattern can arrange."""
        pattern = self.lm.spec.pattern
        longest = one.codes.shape[1] if pattern is None else pattern.span_frames or one.codes.shape[1]
        return torch.from_numpy(one.codes[:, :longest].astype(np.int64))[None].to(self.device)

    def encode(self, texts: Sequence[str]) -> None:
        """Make the states of these words."""
        missing = [text for text in dict.fromkeys(texts) if text and text not in self._states]
        if missing:
            states = self._encoder.encode(missing)
            self._states |= {text: state.cpu() for text, state in zip(missing, states, strict=True)}

    def _conditions(self, one: Heard) -> Conditions:
        row = {TEXT: self._states[one.words]} if one.words else {}
        return batch_conditions([row], self.lm.spec).to(self.device)


class Teacher:
    """A base in memory, asked with and without adapters. Where they move it, both are."""

    def __init__(self, files: BaseFiles, device: str = "auto") -> None:
        self.device = pick_device(device)
        self.adapted = _Side(files, self.device)
        self.base = _Side(files.own, self.device) if files.move else self.adapted
        self._kept: dict[tuple[str, tuple[int, ...], bytes], Tensor] = {}
        """What the base expects of a piece: it is the same for every adapter, checkpoint and strength."""

    @property
    def lm(self) -> LM:
        """The model that adapters are put on."""
        return self.adapted.lm

    def losses(
        self,
        heard: Sequence[Heard],
        updates: Mapping[str, LowRank] | None = None,
        strength: float = 1.0,
        whole: Mapping[str, Tensor] | None = None,
    ) -> Float[np.ndarray, " N"]:
        """Mean cross-entropy per token of each piece, in nats, over all codebooks. `whole`: see `Candidate`."""
        side = self.base if updates is None else self.adapted
        return self._each(heard, updates, strength, whole, lambda one: self._loss(side, one))

    def divergence(
        self,
        heard: Sequence[Heard],
        updates: Mapping[str, LowRank],
        strength: float = 1.0,
        whole: Mapping[str, Tensor] | None = None,
    ) -> Float[np.ndarray, " N"]:
        """Mean KL(base ‖ adapted) per token of each piece, in nats; zero exactly where the adapter changes nothing."""
        return self._each(heard, updates, strength, whole, self._divergence)

    @torch.no_grad()
    def _each(
        self,
        heard: Sequence[Heard],
        updates: Mapping[str, LowRank] | None,
        strength: float,
        whole: Mapping[str, Tensor] | None,
        measure: Callable[[Heard], float],
    ) -> np.ndarray:
        for side in {id(side): side for side in (self.adapted, self.base)}.values():
            side.encode([one.words for one in heard])
        if whole:
            install(self.lm, whole, self.lm.device, self.lm.dtype)
        if updates is not None:
            attach_updates(self.lm, dict(updates), strength)
        try:
            return np.array([measure(one) for one in heard], dtype=np.float64)
        finally:
            if updates is not None:
                detach(self.lm)

    def _loss(self, side: _Side, one: Heard) -> float:
        logits, labels = side.logits(one)
        return float(codebook_sums(logits, labels).sum() / codebook_counts(labels).sum())

    def _divergence(self, one: Heard) -> float:
        base = self._of_base(one)
        if self.base is not self.adapted:
            codes = self.adapted.codes(one)
            base = base[:, :, : codes.shape[2]]
            return float(divergence_sums(self.adapted.by_frame(one), base, codes).sum() / codes.numel())
        adapted, labels = self.adapted.logits(one)
        return float(divergence_sums(adapted, base, labels).sum() / codebook_counts(labels).sum())

    def _of_base(self, one: Heard) -> Float[Tensor, "1 K _ card"]:
        """Its logits, by step or, where the adapter moves it, by frame; kept as they are while there is room."""
        key = (one.words, one.codes.shape, one.codes.tobytes())
        if key in self._kept:
            return self._kept[key].to(self.device)
        if self.base is not self.adapted:
            base = self.base.by_frame(one)
        else:
            with disabled(self.lm):
                base, _ = self.base.logits(one)
        if sum(kept.nbytes for kept in self._kept.values()) + base.nbytes <= KEPT_BYTES:
            self._kept[key] = base.cpu()
        return base
