"""Magenta RealTime 2's language model: codes and conditions in, next-code logits out. No codec, no style model.

A frame is made in two moves. The temporal stack hears the frames before it and the conditions up to it; the depth
stack then makes the frame's codes level by level, each hearing the levels before. Logits equal the official code's to
fp32 rounding (magenta-rt 2.0.3, `jax/depthformer.py`); of each level only the codes that level may hold are computed.

Everything held here is frozen and stays in eval; the official dropout is not part of it. It computes no loss.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from adapters.conditions import Conditions
from adapters.family.lm import LM
from adapters.family.magenta_rt2.conditions import MagentaConditions, codes_before
from adapters.family.magenta_rt2.layers import NORM_EPSILON, DepthLayer, TemporalLayer
from adapters.family.magenta_rt2.ring import window_mask
from adapters.family.magenta_rt2.spec import lm_spec
from adapters.pattern import IGNORE
from data_prep.magenta_rt2.sizes import (
    CONTROL_VOCABULARIES,
    N_RESERVED,
    N_STYLE_TOKENS,
    STYLE_VOCABULARY,
    MagentaSpec,
)

START_ID = 0
"""The id that stands in all codebooks before the first frame."""


class Source(nn.Module):
    """The condition ids of each frame as one vector: mean of style and controls, normalised.

    The style tokens are summed as a quantiser's levels and projected; notes, drums and strengths are averaged.
    """

    def __init__(self, spec: MagentaSpec) -> None:
        super().__init__()
        self.style = nn.Embedding(N_STYLE_TOKENS * STYLE_VOCABULARY, spec.style_width)
        self.style_proj = nn.Linear(spec.style_width, spec.source_width, bias=False)
        self.controls = nn.Embedding(spec.n_control_ids, spec.source_width)
        self.norm = nn.LayerNorm(spec.source_width, eps=NORM_EPSILON)

    def forward(self, ids: Int[Tensor, "B T 144"]) -> Float[Tensor, "B T E"]:
        """What cross-attention reads of every frame. A strength at its upper end has the first id of the next slot."""
        B, T, _ = ids.shape
        style_ids = ids[..., :N_STYLE_TOKENS] + torch.arange(N_STYLE_TOKENS, device=ids.device) * STYLE_VOCABULARY
        starts = torch.tensor((0, *CONTROL_VOCABULARIES[:-1]), device=ids.device).cumsum(0)
        control_ids = ids[..., N_STYLE_TOKENS:] + starts
        style = F.embedding_bag(style_ids.flatten(0, 1), self.style.weight, mode="sum")
        controls = F.embedding_bag(control_ids.flatten(0, 1), self.controls.weight, mode="mean")
        return self.norm((self.style_proj(style) + controls) / 2).view(B, T, -1)


class Temporal(nn.Module):
    """The stack over frames."""

    def __init__(self, spec: MagentaSpec) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TemporalLayer(spec.temporal, spec.source_width) for _ in range(spec.temporal.layers)
        )


class Depth(nn.Module):
    """The stack over the levels of one frame, and what turns its states into logits.

    `heads` holds one projection per codebook; the rows of the reserved ids, which no level may hold, are kept for
    writing the official layout.
    """

    def __init__(self, spec: MagentaSpec) -> None:
        super().__init__()
        width = spec.depth.width
        same = spec.temporal.width == width
        self.adapter = nn.Identity() if same else nn.Linear(spec.temporal.width, width, bias=False)
        self.layers = nn.ModuleList(DepthLayer(spec.depth) for _ in range(spec.depth.layers))
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.heads = nn.ModuleList(nn.Linear(width, spec.card) for _ in range(spec.n_codebooks))
        self.reserved = nn.Linear(width, N_RESERVED)


class MagentaLM(LM):
    """The language model of one size; `sizes` says which. All weights are frozen.

    `train()` reaches only an adapter's dropout. There is no special code: what stands before the first frame is not
    given as codes, and a frame's levels are predicted one after another.
    """

    def __init__(self, sizes: MagentaSpec) -> None:
        super().__init__(lm_spec(sizes))
        self.levels_at_once = 1
        self.sizes = sizes
        self.source = Source(sizes)
        self.codes = nn.Embedding(sizes.n_ids, sizes.temporal.width)
        self.temporal = Temporal(sizes)
        self.depth = Depth(sizes)
        self.requires_grad_(False)
        self.eval()

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The layers of the stack over frames; the stack over levels is small."""
        return list(self.temporal.layers)

    @property
    def dtype(self) -> torch.dtype:
        """Of everything that is not quantised."""
        return self.source.norm.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.source.norm.weight.device

    def forward(
        self,
        inputs: Int[Tensor, "B K T"],
        conditions: MagentaConditions | Conditions,
        previous: Int[Tensor, "B K"] | None = None,
    ) -> Float[Tensor, "B K T card"]:
        """Logits of every code: frame t, level k knows frames before t, and levels before k of frame t.

        `conditions` hold for T frames, or for one that stands for all. `previous` is the frame before the first, for
        codes cut from the middle of a piece; without it the piece begins here. What lies further back is not heard:
        the first window of frames after a cut knows less than it would have in the piece. In a batch the frame before
        is a condition of its own (`spec.PREVIOUS`), for the rows that have one.
        """
        has_previous = None
        if isinstance(conditions, Conditions):
            previous, has_previous = codes_before(conditions) or (previous, None)
            conditions = MagentaConditions.of_kinds(conditions, len(inputs))
        embedded = self.embed(inputs.transpose(1, 2))  # [B, T, K, D]
        first = self._first(len(inputs), previous, has_previous)
        source = self.encode(conditions, inputs.shape[2]).contiguous()  # once, not in every layer that reads it
        states = self.temporal_states(torch.cat([first, embedded[:, :-1].mean(2)], dim=1), source)
        return self.level_logits(states, embedded)

    def inputs_and_labels(
        self, codes: Int[Tensor, "B K T"], n_frames: Int[Tensor, " B"]
    ) -> tuple[Int[Tensor, "B K S"], Int[Tensor, "B K S"]]:
        """The codes themselves, both times: `forward` moves them. Behind a clip's end nothing is to be predicted."""
        behind = torch.arange(codes.shape[2], device=codes.device) >= n_frames[:, None, None]
        return codes.masked_fill(behind, 0), codes.masked_fill(behind, IGNORE)

    def next_logits(
        self, columns: Int[Tensor, "B K S"], begun: Int[Tensor, "B k"], conditions: MagentaConditions | Conditions
    ) -> Float[Tensor, "B n card"]:
        """Logits of the next level of the frame behind `columns`: what `MagentaSteps` is compared with.

        The first column is the start of the piece and holds no codes; those of rows that have ended mean nothing.
        Conditions per frame may reach further than the columns.
        """
        level = begun.shape[1]
        frame = torch.cat([begun, begun.new_zeros(len(begun), self.n_codebooks - level)], dim=1)
        codes = torch.cat([columns[:, :, 1:], frame[:, :, None]], dim=2).clamp(0, self.card - 1)
        if isinstance(conditions, Conditions):
            conditions = MagentaConditions.of_kinds(conditions, len(columns))
        return self(codes, conditions.frames(0, codes.shape[2]))[:, level : level + 1, -1]

    def embed(self, codes: Int[Tensor, "B T K"]) -> Float[Tensor, "B T K D"]:
        """Scaled embeddings of codes 0 … card - 1."""
        starts = torch.arange(self.n_codebooks, device=codes.device) * self.card + N_RESERVED
        return self._scaled(codes + starts)

    def embed_level(self, codes: Int[Tensor, "B T"], level: int) -> Float[Tensor, "B T D"]:
        """Scaled embeddings of codes of one level."""
        return self._scaled(codes + (N_RESERVED + level * self.card))

    def start(self, n_rows: int) -> Float[Tensor, "B 1 D"]:
        """What the temporal stack hears before the first frame."""
        ids = torch.full((n_rows, 1), START_ID, device=self.device)
        return self._scaled(ids)  # twelve times the same id: its mean is itself

    def encode(self, conditions: MagentaConditions, n_frames: int) -> Float[Tensor, "B T E"]:
        """What cross-attention reads, for every frame.

        Raises:
            ValueError: the conditions are for another number of frames.
        """
        if conditions.n_frames not in (1, n_frames):
            raise ValueError(f"conditions for {conditions.n_frames} frames, codes for {n_frames}")
        source = self.source(conditions.ids().to(self.device))  # values are checked where they are
        return source.expand(-1, n_frames, -1)

    def temporal_states(self, inputs: Float[Tensor, "B T D"], source: Float[Tensor, "B T E"]) -> Float[Tensor, "B T D"]:
        """What the temporal stack says of every frame, given the frame before each."""
        mask = window_mask(inputs.shape[1], 0, self.sizes.window_frames, sink=True, device=inputs.device)
        x = inputs
        for layer in self.temporal.layers:
            x = layer(x, source, mask)
        return x

    def level_logits(
        self, states: Float[Tensor, "B T D"], embedded: Float[Tensor, "B T K D"]
    ) -> Float[Tensor, "B K T card"]:
        """Logits of all levels of all frames, from the frames' states and the codes that each level knows."""
        B, T, K, _ = embedded.shape
        known = torch.cat([states[:, :, None], embedded[:, :, :-1]], dim=2)  # [B, T, K, D]
        x = self.depth.adapter(known).flatten(0, 1)  # [B*T, K, D_depth]
        mask = window_mask(K, 0, K, sink=False, device=x.device)
        for layer in self.depth.layers:
            x = layer(x, mask)
        x = self.depth.norm(x).view(B, T, K, -1)
        return torch.stack([self.logits_of(x[:, :, level], level) for level in range(K)], dim=1)

    def logits_of(self, states: Float[Tensor, "*N D"], level: int) -> Float[Tensor, "*N card"]:
        """Soft-capped logits of one level from normalised states of the depth stack."""
        cap = self.sizes.logit_cap
        return torch.tanh(self.depth.heads[level](states) / cap) * cap

    def _first(
        self, n_rows: int, previous: Int[Tensor, "B K"] | None, has_previous: Bool[Tensor, " B"] | None
    ) -> Float[Tensor, "B 1 D"]:
        """What the temporal stack hears before the first frame: the frame before, or that a piece begins."""
        if previous is None:
            return self.start(n_rows)
        before = self.embed(previous[:, None]).mean(2)
        return before if has_previous is None else torch.where(has_previous[:, None, None], before, self.start(n_rows))

    def _scaled(self, ids: Int[Tensor, "*N"]) -> Float[Tensor, "*N D"]:
        return self.codes(ids) * math.sqrt(self.sizes.temporal.width)
