"""What the MusicGen models share: a decoder of transformers, held frozen, and how its configuration is written."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from adapters.family.lm import LM
from data_prep.lm_spec import LMSpec


class DecoderLM(LM):
    """A language model around a MusicGen decoder of transformers, as `decoder`."""

    decoder: Any

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The decoder's layers."""
        return list(self.decoder.model.decoder.layers)

    def cheap_modules(self, block: Any) -> Sequence[nn.Module]:
        """The norms and the activation function of a layer."""
        return [*(child for child in block.children() if isinstance(child, nn.LayerNorm)), block.activation_fn]

    @property
    def dtype(self) -> torch.dtype:
        """Of everything that is not quantised, and of the arithmetic outside autocast."""
        return self.decoder.model.decoder.layer_norm.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.model.decoder.layer_norm.weight.device


def config_parts(spec: LMSpec, decoder_config: Any) -> dict[str, Any]:
    """Text encoder, codec and decoder of such a configuration; the decoder's class differs between the families."""
    from transformers import EncodecConfig, T5Config

    decoder = decoder_config(
        hidden_size=spec.hidden,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        ffn_dim=spec.ffn,
        num_codebooks=spec.n_codebooks,
        audio_channels=spec.channels,
        vocab_size=spec.card,
        max_position_embeddings=spec.positions,
        activation_function=spec.activation,
        pad_token_id=None,
        bos_token_id=None,
    )
    text = T5Config(d_model=spec.text_width)
    return {"text_encoder": text.to_dict(), "audio_encoder": EncodecConfig().to_dict(), "decoder": decoder.to_dict()}


def plain_decoder_config(config: Any, spec: LMSpec) -> Any:
    """The decoder's configuration without dropout and cache: what a frozen base computes with, moved as `spec` says."""
    decoder = copy.deepcopy(config.decoder)
    for name in ("dropout", "attention_dropout", "activation_dropout", "layerdrop"):
        setattr(decoder, name, 0.0)
    decoder.use_cache = False
    decoder.num_codebooks, decoder.vocab_size, decoder.audio_channels = spec.n_codebooks, spec.card, spec.channels
    decoder.max_position_embeddings = spec.positions
    return decoder
