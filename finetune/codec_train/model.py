"""A codec while it learns: EnCodec's own encoder and decoder around a quantiser. `export` makes a usable one of it."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import EncodecConfig
from transformers.models.encodec.modeling_encodec import EncodecDecoder, EncodecEncoder

from finetune.codec_train.quantiser import Quantiser
from finetune.codec_train.settings import CodecSettings


def encodec_config(settings: CodecSettings, hidden_size: int) -> EncodecConfig:
    """The architecture, with as many channels between encoder and quantiser as asked."""
    bits_per_frame = settings.n_codebooks * (settings.card - 1).bit_length()
    frames_per_sec = -(-settings.sample_rate_hz // settings.hop)  # as EncodecConfig rounds it
    return EncodecConfig(
        sampling_rate=settings.sample_rate_hz,
        upsampling_ratios=list(settings.upsampling),
        num_filters=settings.filters,
        hidden_size=hidden_size,
        codebook_size=settings.card,
        target_bandwidths=[bits_per_frame * frames_per_sec / 1000],
        num_lstm_layers=settings.lstm_layers,
        use_causal_conv=False,
        use_conv_shortcut=False,
    )


@dataclass
class Reconstruction:
    """What one forward pass gives. `commitment` is zero while the quantiser is not in use."""

    audio: Float[Tensor, "B 1 N"]
    latents: Float[Tensor, "B T D"]
    codes: Int[Tensor, "B T K"] | None
    commitment: Float[Tensor, ""]


class CodecModel(nn.Module):
    """Encoder, quantiser, decoder."""

    def __init__(self, settings: CodecSettings) -> None:
        super().__init__()
        config = encodec_config(settings, settings.width)
        self.settings = settings
        self.encoder = EncodecEncoder(config)
        self.decoder = EncodecDecoder(config)
        self.quantizer = Quantiser(settings)

    def forward(self, audio: Float[Tensor, "B 1 N"], *, quantize: bool, drop_from: int | None = None) -> Reconstruction:
        """Encode and decode. `drop_from`: codebooks from this one on are left out (quantiser dropout)."""
        latents = self.encoder(audio).transpose(1, 2)  # [B, T, D]
        codes, commitment, used = None, latents.new_zeros(()), latents
        if quantize:
            made = self.quantizer(latents, drop_from)
            used, codes, commitment = made.latents, made.codes, made.loss
        decoded = self.decoder(used.transpose(1, 2))[..., : audio.shape[-1]]  # [B, 1, N]
        return Reconstruction(decoded, latents, codes, commitment)
