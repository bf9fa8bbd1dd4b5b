"""The language model while it learns: a small T5 encoder and MusicGen's decoder, trained together from captions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoTokenizer, EncodecConfig, MusicgenConfig, MusicgenDecoderConfig, T5Config, T5EncoderModel

from adapters.conditions import Conditions
from adapters.family.musicgen.format import FORMAT
from adapters.family.musicgen.lm import MusicgenLM
from data_prep.lm_spec import TEXT
from finetune.loss import codebook_counts, codebook_sums
from starter.recipe.beats import BeatsHead
from starter.recipe.facts import FactsHead
from starter.recipe.sizes import LMSize


def musicgen_config(size: LMSize, codec: EncodecConfig, vocabulary: int) -> MusicgenConfig:
    """The whole model's configuration around a codec."""
    text = T5Config(
        vocab_size=vocabulary,
        d_model=size.text_width,
        d_kv=size.text_kv,
        d_ff=4 * size.text_width,
        num_layers=size.text_layers,
        num_heads=size.text_heads,
        dropout_rate=0.0,
        is_encoder_decoder=False,
        use_cache=False,
    )
    decoder = MusicgenDecoderConfig(
        vocab_size=codec.codebook_size,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        ffn_dim=size.ffn,
        num_codebooks=4,
        pad_token_id=codec.codebook_size,
        bos_token_id=codec.codebook_size,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
    )
    return MusicgenConfig(text_encoder=text, audio_encoder=codec, decoder=decoder)


class TextToCodes(nn.Module):
    """Captions and codes in, loss out."""

    def __init__(self, config: MusicgenConfig, tokenizer_folder: Path) -> None:
        super().__init__()
        parts: Any = config
        self.text_encoder = T5EncoderModel._from_config(parts.text_encoder)
        self.lm = MusicgenLM(FORMAT.spec(Path(), config.to_dict()), config)
        self.lm.requires_grad_(True)
        if not torch.cuda.is_available():
            # On a CPU a step with torch's fused attention takes 1.7 times as long as with plain products.
            self.lm.decoder.set_attn_implementation("eager")
        self.facts_head = FactsHead(parts.text_encoder.d_model)
        self.beats_head = BeatsHead(parts.decoder.hidden_size)
        self._before_last: dict[str, Tensor] = {}
        decoder: Any = self.lm.decoder
        decoder.model.decoder.layers[-2].register_forward_hook(self._keep)
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
        self._begin_small(parts.decoder.hidden_size)

    def _begin_small(self, hidden: int) -> None:
        """Embeddings of K codebooks are added up: begin with a sum as large as the sinusoidal positions beside it."""
        decoder: Any = self.lm.decoder
        for embedding in decoder.model.decoder.embed_tokens:
            nn.init.normal_(embedding.weight, std=0.25)
        for head in decoder.lm_heads:
            nn.init.normal_(head.weight, std=hidden**-0.5 / 2)

    def _keep(self, _layer: nn.Module, _inputs: object, states: Tensor) -> None:
        self._before_last["states"] = states

    def conditions(self, captions: Sequence[str]) -> Conditions:
        """Text states of a batch; a caption that is empty is the null condition."""
        ids = self.tokenizer(list(captions), padding=True, return_tensors="pt").to(self.lm.device)
        states = self.text_encoder(**ids).last_hidden_state
        said = torch.tensor([bool(caption) for caption in captions], device=self.lm.device)
        return Conditions.of_text(states, ids.attention_mask.bool() & said[:, None])

    def forward(
        self,
        codes: Int[Tensor, "B K T"],
        captions: Sequence[str],
        facts: Sequence[dict[str, Any]],
        hidden: Bool[Tensor, "B S"] | None = None,
    ) -> tuple[Float[Tensor, " K"], dict[str, Float[Tensor, ""]]]:
        """Mean cross-entropy of each codebook in nats, and by name the losses of `FactsHead` and `BeatsHead`.

        Beats are asked of the states before the last layer, so that this layer can make use of the answer.

        `hidden`: steps whose input is not heard (word dropout: Bowman et al. 2016, arXiv:1511.06349). A model that
        hears everything that came before learns to overhear the caption.
        """
        n_frames = torch.full((len(codes),), codes.shape[2], device=codes.device)
        inputs, labels = self.lm.inputs_and_labels(codes, n_frames)
        if hidden is not None:
            inputs = inputs.masked_fill(hidden[:, None], self.lm.card)  # [B, K, S]
        conditions = self.conditions(captions)
        logits = self.lm(inputs, conditions)
        told = self.facts_head(conditions[TEXT].values, conditions[TEXT].mask, facts)
        told |= self.beats_head(self._before_last.pop("states"), facts)
        return codebook_sums(logits, labels) / codebook_counts(labels), told
