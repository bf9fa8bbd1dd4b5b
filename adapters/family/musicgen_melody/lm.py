"""MusicGen-melody without its text encoder and codec: the decoder and the projections of text and melody.

Modules carry the names they have in the full `MusicgenMelodyForConditionalGeneration` (`decoder.…`, `enc_to_dec_proj`,
`audio_enc_to_dec_proj`). The decoder has no cross-attention: melody and text are entries before the first step. The
heads run over the steps only, where transformers computes logits of the prefix, too.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import MusicgenMelodyConfig, MusicgenMelodyForCausalLM

from adapters.conditions import Conditions
from adapters.family.musicgen.decoder_lm import DecoderLM, config_parts, plain_decoder_config
from adapters.family.musicgen_melody.format import MELODY, MelodySpec
from adapters.family.musicgen_melody.prefix import melody_entries, text_entries
from data_prep.known_remarks import drop_known_remarks
from data_prep.lm_spec import TEXT, LMSpec

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles


class MelodyLM(DecoderLM):
    """The trained part of MusicGen-melody: codes, text and melody in, next-code logits out."""

    decoder: MusicgenMelodyForCausalLM
    enc_to_dec_proj: nn.Linear | None
    audio_enc_to_dec_proj: nn.Linear | None

    def __init__(self, spec: LMSpec, config: MusicgenMelodyConfig) -> None:
        super().__init__(spec)
        assert isinstance(spec, MelodySpec)
        self.n_entries = spec.melody_entries
        self.decoder = MusicgenMelodyForCausalLM._from_config(plain_decoder_config(config, spec))
        self.enc_to_dec_proj = nn.Linear(spec.text_width, spec.hidden) if spec.text_width != spec.hidden else None
        n_chroma = spec.melody.width
        self.audio_enc_to_dec_proj = nn.Linear(n_chroma, spec.hidden) if n_chroma != spec.hidden else None
        self.requires_grad_(False)
        self.eval()

    @staticmethod
    def of(files: "BaseFiles") -> "MelodyLM":
        """Without weights: under the meta device; else with random ones."""
        drop_known_remarks()
        return MelodyLM(files.spec, MusicgenMelodyConfig.from_pretrained(files.folder, trust_remote_code=False))

    def forward(self, inputs: Int[Tensor, "B K S"], conditions: Conditions) -> Float[Tensor, "B K S card"]:
        """Logits of the code that follows each step. Every row may have its own text and melody, or none."""
        n_steps = inputs.shape[2]
        out = self.decoder.model(
            input_ids=inputs.reshape(-1, n_steps),  # pyright: ignore[reportArgumentType]
            encoder_hidden_states=self.prefix(conditions),  # pyright: ignore[reportArgumentType]
            use_cache=False,
        )
        hidden = out.last_hidden_state[:, -n_steps:]  # [B, S, D]
        return torch.stack([head(hidden) for head in self.decoder.lm_heads], dim=1)  # [B, K, S, card]

    def prefix(self, conditions: Conditions) -> Float[Tensor, "B P D"]:
        """What is read before the first step."""
        melody = melody_entries(conditions[MELODY], self.n_entries).to(self.dtype)
        text = conditions[TEXT].values.to(self.dtype)
        if self.audio_enc_to_dec_proj is not None:
            melody = self.audio_enc_to_dec_proj(melody)
        if self.enc_to_dec_proj is not None:
            text = self.enc_to_dec_proj(text)
        return torch.cat([melody, text_entries(text, conditions[TEXT].mask).to(melody)], dim=1)


def config_of(spec: LMSpec) -> MusicgenMelodyConfig:
    """A transformers configuration of this shape, with T5 and EnCodec left at their defaults."""
    from transformers import MusicgenMelodyDecoderConfig

    assert isinstance(spec, MelodySpec)
    return MusicgenMelodyConfig(
        **config_parts(spec, MusicgenMelodyDecoderConfig),
        num_chroma=spec.melody.width,
        chroma_length=spec.melody_entries,
    )
