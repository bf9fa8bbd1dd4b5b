"""Latents to codes while a codec learns: codebooks of vector-quantize-pytorch, put together in one of three ways.

The package gives a single codebook its running means, k-means start, replacement of dead codes and cosine search; how
codebooks share the work, the losses and the gradients stand here. The same codes without the package, from an exported
codec: `data_prep.codec.encodec` and `data_prep.codec.woodshed_vq`.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor, nn

from configs.errors import UserError
from data_prep.codec.frame_groups import pooled, spread
from finetune.codec_train.settings import CodecSettings

DECAY = 0.97
"""Of the running means of a codebook, per step."""
KMEANS_ROUNDS = 20


@dataclass
class Quantised:
    """What a quantiser makes of latents [B, T, D].

    Attributes:
        latents: as the codes have them; gradients go straight through to the encoder.
        codes: one per frame and codebook; where frames share a code, each has it.
        loss: how far latents and codes are apart (commitment, plus the codebook loss where codebooks are learnt).
    """

    latents: Float[Tensor, "B T D"]
    codes: Int[Tensor, "B T K"]
    loss: Float[Tensor, ""]


class Quantiser(nn.Module):
    """K codebooks between encoder and decoder; in float32 whatever the model computes in."""

    def __init__(self, settings: CodecSettings) -> None:
        super().__init__()
        self.settings = settings
        K, width, dim = settings.n_codebooks, settings.width, settings.codebook_dim
        shared = not settings.cosine and dim != width
        self.project_in = nn.Linear(width, dim) if shared else nn.Identity()
        self.project_out = nn.Linear(dim, width) if shared else nn.Identity()
        own = K if settings.cosine else 0
        self.narrow = nn.ModuleList(nn.Linear(width, dim) for _ in range(own))
        self.widen = nn.ModuleList(nn.Linear(dim, width) for _ in range(own))
        per_codebook = dim // K if settings.quantiser == "grouped" else dim
        codes_per_step = settings.batch_size * settings.crop_sec * settings.frame_rate_hz
        self.layers: Any = nn.ModuleList(
            _codebook(settings, per_codebook, codes_per_step / stride) for stride in settings.strides
        )

    def forward(self, latents: Float[Tensor, "B T D"], first: int | None = None) -> Quantised:
        """Quantise with the first so many codebooks (all, unless said)."""
        with torch.autocast(latents.device.type, enabled=False):
            x = self.project_in(latents.float())
            way = {"residual": self._residual, "hierarchical": self._residual, "grouped": self._grouped}
            made = (self._cosine if self.settings.cosine else way[self.settings.quantiser])(x, first)
            return Quantised(self.project_out(made.latents), made.codes, made.loss)

    @torch.no_grad()
    def entries(self) -> Float[Tensor, "K card d"]:
        """What each code adds to the decoder's input, before the shared projection, if there is one."""
        rows = [layer.codebook.detach() for layer in self.layers]  # [card, dim] each
        if self.settings.cosine:
            return torch.stack([widen(row) for widen, row in zip(self.widen, rows, strict=True)])
        if self.settings.quantiser == "grouped":
            dim = rows[0].shape[1]
            total = self.settings.codebook_dim
            rows = [F.pad(row, (at * dim, total - (at + 1) * dim)) for at, row in enumerate(rows)]
        return torch.stack(rows)

    def _residual(self, x: Float[Tensor, "B T d"], first: int | None) -> Quantised:
        rest, codes, losses = x, [], []
        for layer, stride in zip(list(self.layers)[:first], self.settings.strides, strict=False):
            found, index, loss = self._choose(layer, pooled(rest, stride))
            rest = rest - spread(found, stride, x.shape[1]).detach()
            codes.append(spread(index[..., None], stride, x.shape[1])[..., 0])
            losses.append(loss)
        # Straight through once, over the sum: once per codebook would count the encoder's gradient K times.
        return Quantised(x - rest.detach(), torch.stack(codes, dim=-1), torch.stack(losses).sum())

    def _grouped(self, x: Float[Tensor, "B T d"], first: int | None) -> Quantised:
        kept, codes, losses = [], [], []
        for number, (layer, part) in enumerate(zip(self.layers, x.chunk(len(self.layers), dim=-1), strict=True)):
            if first is not None and number >= first:
                kept.append(torch.zeros_like(part))
                continue
            found, index, loss = self._choose(layer, part)
            kept.append(part + (found - part).detach())
            codes.append(index)
            losses.append(loss)
        return Quantised(torch.cat(kept, dim=-1), torch.stack(codes, dim=-1), torch.stack(losses).sum())

    def _cosine(self, x: Float[Tensor, "B T D"], first: int | None) -> Quantised:
        total, rest, codes, losses = torch.zeros_like(x), x, [], []
        parts = zip(self.layers, self.narrow, self.widen, self.settings.strides, strict=True)
        for layer, narrow, widen, stride in list(parts)[:first]:
            direction = F.normalize(narrow(pooled(rest, stride)), dim=-1)
            found, index, loss = self._choose(layer, direction)
            added = spread(widen(direction + (found - direction).detach()), stride, x.shape[1])
            total, rest = total + added, rest - added
            codes.append(spread(index[..., None], stride, x.shape[1])[..., 0])
            losses.append(loss)
        return Quantised(total, torch.stack(codes, dim=-1), torch.stack(losses).sum())

    def _choose(self, layer: Any, x: Float[Tensor, "B t d"]) -> tuple[Tensor, Int[Tensor, "B t"], Float[Tensor, ""]]:
        """Entry and number of the nearest code, and the loss. Van den Oord et al. 2017, arXiv:1711.00937, eq. 3."""
        entry, index, _ = layer(x.detach())
        loss = self.settings.commitment * F.mse_loss(x, entry.detach())
        if not self.settings.ema:
            loss = loss + F.mse_loss(entry, x.detach())
        return entry.detach(), index, loss


def _codebook(settings: CodecSettings, dim: int, codes_per_step: float) -> nn.Module:
    return vector_quantize()(
        dim=dim,
        codebook_size=settings.card,
        decay=DECAY,
        kmeans_init=settings.kmeans,
        kmeans_iters=KMEANS_ROUNDS,
        threshold_ema_dead_code=settings.expire * codes_per_step / settings.card,
        use_cosine_sim=settings.cosine,
        commitment_weight=0.0,  # the losses are made here
        ema_update=settings.ema,
        learnable_codebook=not settings.ema,
        rotation_trick=False,
    )


def vector_quantize() -> Any:
    """The package's class, imported when a codec is to learn.

    Raises:
        UserError: the package is not installed.
    """
    try:
        from vector_quantize_pytorch import VectorQuantize
    except ImportError as error:
        raise UserError(
            "Training a codec needs the package vector-quantize-pytorch.",
            fix='Install it: pip install "woodshed[codec-train]".',
        ) from error
    return VectorQuantize
