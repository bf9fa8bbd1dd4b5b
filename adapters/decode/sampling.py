"""From logits to tokens, on the device, without the host ever waiting for a value.

Order of the filters as in transformers: temperature, then the k likeliest, then the likeliest that hold a share p of
what is left. Temperature 0 takes the likeliest token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adapters.decode.noise import gumbel
from configs.errors import UserError

Number = int | float
ALL = slice(None)


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. A sequence gives one value per codebook."""

    guidance: Number = 3.0
    temperature: Number | Sequence[Number] = 1.0
    top_k: int | Sequence[int] = 250
    top_p: Number | Sequence[Number] = 0.0
    context_guidance: Number | None = None
    """Scale for what is followed besides text; None: `guidance` counts for everything at once."""

    @property
    def passes(self) -> int:
        """Rows that a piece takes: with everything; without text, where that has a scale of its own; with nothing."""
        if self.context_guidance is not None and self.context_guidance != self.guidance:
            return 3
        return 1 if self.guidance == 1 else 2


class Knobs:
    """Sampling settings on the device; `turn` rewrites them in place, so that a captured step sees it."""

    def __init__(self, sampling: Sampling, n_codebooks: int, card: int, device: torch.device) -> None:
        self.card = card
        self.n_codebooks = n_codebooks
        self.guidance = torch.empty((), device=device)
        self.context_guidance = torch.empty((), device=device)
        self.temperature = torch.empty(n_codebooks, 1, device=device)
        self.noise_on = torch.empty(n_codebooks, 1, device=device)
        self.top_k = torch.empty(n_codebooks, 1, device=device, dtype=torch.long)
        self.top_p = torch.empty(n_codebooks, 1, device=device)
        self.turn(sampling)

    def turn(self, sampling: Sampling) -> None:
        """Take over other settings.

        Raises:
            UserError: a value out of range, or not one value per codebook.
        """
        temperature = self._per_codebook("temperature", sampling.temperature, 0, 100)
        top_k = [min(int(k) or self.card, self.card) for k in self._per_codebook("top_k", sampling.top_k, 0, 1 << 30)]
        top_p = self._per_codebook("top_p", sampling.top_p, 0, 1)
        self.sampling = sampling
        self.greedy = not any(temperature)
        self.limit = max(top_k)
        self.uses_top_p = any(0 < p < 1 for p in top_p)
        self.filters = self.uses_top_p or min(top_k) < self.card
        self.guidance.fill_(sampling.guidance)
        self.context_guidance.fill_(
            sampling.guidance if sampling.context_guidance is None else sampling.context_guidance
        )
        _fill(self.temperature, [t or 1.0 for t in temperature])
        _fill(self.noise_on, [float(t > 0) for t in temperature])
        _fill(self.top_k, top_k)
        _fill(self.top_p, [p or 1.0 for p in top_p])

    @property
    def form(self) -> tuple:
        """What a captured step has fixed: another form needs another capture."""
        return self.greedy, self.limit, self.uses_top_p, self.filters

    def _per_codebook(self, name: str, value: Number | Sequence[Number], low: int, high: int) -> list[Number]:
        values = list(value) if isinstance(value, Sequence) else [value] * self.n_codebooks
        if len(values) != self.n_codebooks:
            raise UserError(
                f"{name} has {len(values)} values", fix=f"give one, or {self.n_codebooks}: one per codebook"
            )
        if not all(low <= v <= high for v in values):
            raise UserError(f"{name} must be between {low} and {high}, not {value}")
        return values


def guide(
    logits: Float[Tensor, "N K card"], knobs: Knobs, n_text: int, passes: int
) -> Float[Tensor, "{n_text} K card"]:
    """Classifier-free guidance (Ho and Salimans 2022): away from what the model would play without the conditions.

    With three passes the text has a scale of its own, over what the other conditions alone would give (Brooks et al.
    2023, arXiv:2211.09800, equation 3); with equal scales that is the same as two passes.
    """
    shown, *without = logits.split(n_text)
    assert len(without) == passes - 1
    if not without:
        return shown
    null = without[-1]
    if len(without) == 1:
        return null + (shown - null) * knobs.guidance
    return null + (without[0] - null) * knobs.context_guidance + (shown - without[0]) * knobs.guidance


def draw(
    logits: Float[Tensor, "B n card"], knobs: Knobs, words: Int[Tensor, "B n"], levels: slice = ALL
) -> Int[Tensor, "B n"]:
    """One token per row and codebook of `levels`; `words` are the cells' random words (noise.cell_words)."""
    if knobs.greedy:
        return logits.argmax(-1)
    scaled, noise_on = logits / knobs.temperature[levels], knobs.noise_on[levels]
    if not knobs.filters:
        tokens = torch.arange(knobs.card, device=logits.device).expand(scaled.shape)
        return (scaled + gumbel(words, tokens) * noise_on).argmax(-1)
    values, tokens = scaled.topk(knobs.limit, dim=-1)  # [B, n, k], likeliest first
    rank = torch.arange(knobs.limit, device=logits.device)
    values = values.masked_fill(rank >= knobs.top_k[levels], -torch.inf)
    if knobs.uses_top_p:
        share = values.softmax(-1)
        values = values.masked_fill(share.cumsum(-1) - share >= knobs.top_p[levels], -torch.inf)
    pick = (values + gumbel(words, tokens) * noise_on).argmax(-1, keepdim=True)
    return tokens.gather(-1, pick).squeeze(-1)


def _fill(buffer: Tensor, values: Sequence[Number]) -> None:
    buffer.copy_(torch.tensor(values, dtype=buffer.dtype)[:, None], non_blocking=True)
