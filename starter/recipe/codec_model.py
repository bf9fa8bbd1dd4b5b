"""The codec while it learns: EnCodec's own encoder and decoder around a residual vector quantizer.

The quantizer is vector-quantize-pytorch's: straight-through gradients, commitment loss, codebooks as running means (or
learnt by the codebook loss), k-means start, dead codes replaced, quantizer dropout. `codec_export` makes an
EncodecModel of it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import EncodecConfig
from transformers.models.encodec.modeling_encodec import EncodecDecoder, EncodecEncoder
from vector_quantize_pytorch import ResidualVQ

from starter.recipe.sizes import CodecSize

DEAD_SHARE = 0.1
"""A code that is chosen less than this share of the mean over all codes is replaced by a latent of the batch."""


def encodec_config(size: CodecSize, hidden_size: int) -> EncodecConfig:
    """The architecture, with as many channels between encoder and quantizer as asked."""
    bits_per_frame = size.n_codebooks * (size.card - 1).bit_length()
    kbps = bits_per_frame * size.sample_rate_hz / size.hop / 1000
    return EncodecConfig(
        sampling_rate=size.sample_rate_hz,
        upsampling_ratios=list(size.upsampling),
        num_filters=size.filters,
        hidden_size=hidden_size,
        codebook_size=size.card,
        target_bandwidths=[kbps],
        num_lstm_layers=size.lstm_layers,
        use_causal_conv=False,
        use_conv_shortcut=False,
    )


@dataclass
class Reconstruction:
    """What one forward pass gives. `commitment` is zero while the quantizer is not in use."""

    audio: Float[Tensor, "B 1 N"]
    latents: Float[Tensor, "B T D"]
    codes: Int[Tensor, "B T K"] | None
    commitment: Float[Tensor, ""]


class CodecModel(nn.Module):
    """Encoder, quantizer, decoder."""

    def __init__(self, size: CodecSize) -> None:
        super().__init__()
        config = encodec_config(size, size.width)
        frames_per_step = size.batch_size * size.crop_sec * size.sample_rate_hz / size.hop
        self.size = size
        self.encoder = EncodecEncoder(config)
        self.decoder = EncodecDecoder(config)
        self.quantizer = ResidualVQ(
            dim=size.width,
            codebook_dim=size.codebook_dim,
            num_quantizers=size.n_codebooks,
            codebook_size=size.card,
            decay=0.97,
            kmeans_init=True,
            kmeans_iters=20,
            threshold_ema_dead_code=DEAD_SHARE * frames_per_step / size.card,
            commitment_weight=1.0,
            ema_update=size.ema,
            learnable_codebook=not size.ema,
            rotation_trick=False,
        )

    def forward(self, audio: Float[Tensor, "B 1 N"], *, quantize: bool, drop_from: int | None = None) -> Reconstruction:
        """Encode and decode. `drop_from`: codebooks from this one on are left out (quantizer dropout)."""
        latents = self.encoder(audio).transpose(1, 2)  # [B, T, D]
        codes, commitment, used = None, latents.new_zeros(()), latents
        if quantize:
            used, codes, commitment = self.quantized(latents, drop_from)
        decoded = self.decoder(used.transpose(1, 2))[..., : audio.shape[-1]]  # [B, 1, N]
        return Reconstruction(decoded, latents, codes, commitment)

    def quantized(
        self, latents: Float[Tensor, "B T D"], drop_from: int | None = None
    ) -> tuple[Float[Tensor, "B T D"], Int[Tensor, "B T K"], Float[Tensor, ""]]:
        """Quantized latents (straight-through), codes, and the commitment loss summed over codebooks; in fp32."""
        rvq = self.quantizer
        with torch.autocast(latents.device.type, enabled=False):
            residual = rvq.project_in(latents.float())
            projected, codes, losses = residual, [], []
            for layer in list(rvq.layers)[:drop_from]:
                found, index, loss = layer(residual)
                residual = residual - found.detach()
                codes.append(index)
                losses.append(loss.sum())
            # Straight through once, over the sum: once per codebook would count the encoder's gradient K times.
            total = projected - residual.detach()
            return rvq.project_out(total), torch.stack(codes, dim=-1), torch.stack(losses).sum()
