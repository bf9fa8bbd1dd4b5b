"""MusicGen without its text encoder and codec: the decoder and the text projection, which is all that training needs.

Modules carry the names they have in the full `MusicgenForConditionalGeneration` (`decoder.…`, `enc_to_dec_proj`), so
that an adapter attached here names the modules that plain peft finds there. Logits equal the full model's: the same
decoder code runs, with the same projection and masking before it.

Everything held here is frozen and stays in eval: no dropout but an adapter's own. It never computes a loss.
"""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import MusicgenConfig, MusicgenForCausalLM

from adapters.added_conditions.hook import adding, giving
from adapters.added_conditions.prefix import Prefix, visible
from adapters.conditions import Conditions
from adapters.family.musicgen.decoder_lm import DecoderLM, config_parts, plain_decoder_config
from data_prep.known_remarks import drop_known_remarks
from data_prep.lm_spec import TEXT, LMSpec
from data_prep.move import WORDS

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles


class MusicgenLM(DecoderLM):
    """The trained part of MusicGen: codes and conditions in, next-code logits out.

    `enc_to_dec_proj` exists exactly when the full model has it: the text encoder's width differs from the decoder's
    and the decoder does not take the text's width as it is. `train()` reaches only an adapter's dropout.
    """

    decoder: MusicgenForCausalLM
    enc_to_dec_proj: nn.Linear | None

    def __init__(self, spec: LMSpec, config: MusicgenConfig) -> None:
        super().__init__(spec)
        self.decoder = MusicgenForCausalLM._from_config(plain_decoder_config(config, spec))
        projected = spec.text_width != spec.hidden and self.decoder.config.cross_attention_hidden_size is None
        projected = projected or WORDS in spec.learns_whole
        self.enc_to_dec_proj = nn.Linear(spec.text_width, spec.hidden) if projected else None
        self.requires_grad_(False)
        self.eval()

    @staticmethod
    def of(files: "BaseFiles") -> "MusicgenLM":
        """Without weights: under the meta device; else with random ones."""
        drop_known_remarks()
        return MusicgenLM(files.spec, MusicgenConfig.from_pretrained(files.folder, trust_remote_code=False))

    def code_tables(self) -> Float[Tensor, "K card D"]:
        """Without the special token's."""
        tables: Any = self.decoder.model.decoder.embed_tokens
        return torch.stack([table.weight.detach()[: self.card] for table in tables])

    def forward(self, inputs: Int[Tensor, "B K S"], conditions: Conditions) -> Float[Tensor, "B K S card"]:
        """Logits of the code that follows each step. Every row may have its own condition, or none."""
        states, attend = self.project(conditions)
        flat = inputs.reshape(-1, inputs.shape[2])  # [B * K, S]
        added = None if self.added is None else self.added(conditions, self.pattern, inputs.shape[2])  # [B, S, D]
        prefix = None if self.added is None else self.added.prefix(conditions, self.pattern, self._positions)
        if prefix is not None:
            return self._behind(prefix, inputs, added, states, attend)
        with adding(self.decoder.model.decoder.embed_positions, added):
            out = self.decoder(
                input_ids=flat,  # pyright: ignore[reportArgumentType]
                encoder_hidden_states=states,  # pyright: ignore[reportArgumentType]
                encoder_attention_mask=attend,  # pyright: ignore[reportArgumentType]
                use_cache=False,
            )
        return out.logits.view(*inputs.shape, -1)  # [B, K, S, card]

    def _behind(
        self, prefix: Prefix, inputs: Tensor, added: Tensor | None, states: Tensor, attend: Tensor
    ) -> Float[Tensor, "B K S card"]:
        """Logits of the steps behind a prefix."""
        stack: Any = self.decoder.model.decoder
        n_steps = inputs.shape[2]
        x = sum(table(inputs[:, k]) for k, table in enumerate(stack.embed_tokens))  # [B, S, D]
        place = self._positions(n_steps)
        x = x + (place if added is None else place + added.to(place.dtype))
        x = torch.cat([prefix.entries.to(x.dtype), x], dim=1)  # [B, P + S, D]
        with giving(stack.embed_positions, x.new_zeros(1)):  # they are in it already
            out = self.decoder.model(
                inputs_embeds=x,
                attention_mask=visible(prefix.mask, n_steps),  # pyright: ignore[reportArgumentType]
                encoder_hidden_states=states,  # pyright: ignore[reportArgumentType]
                encoder_attention_mask=attend,  # pyright: ignore[reportArgumentType]
                use_cache=False,
            )
        hidden = out.last_hidden_state[:, -n_steps:]  # [B, S, D]
        return torch.stack([head(hidden) for head in self.decoder.lm_heads], dim=1)  # [B, K, S, card]

    def _positions(self, n_steps: int) -> Float[Tensor, "{n_steps} D"]:
        """The decoder's own, for the first steps."""
        table: Any = self.decoder.model.decoder.embed_positions
        if n_steps > len(table.weights):
            table.make_weights(n_steps, table.embedding_dim)
        return table.weights[:n_steps]

    def project(self, conditions: Conditions) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
        """What cross-attention reads: projected states, zero where masked, and the mask to attend with.

        A row that is masked altogether attends to its zeros: without bias their keys and values are zero, so the
        layer adds nothing, which is what the full model gives, and no softmax runs over nothing.
        """
        text = conditions[TEXT]
        states = text.values.to(self.dtype)
        if self.enc_to_dec_proj is not None:
            states = self.enc_to_dec_proj(states)
        mask = text.mask
        return states * mask[..., None], mask | ~mask.any(dim=1, keepdim=True)


def config_of(spec: LMSpec) -> MusicgenConfig:
    """A transformers configuration of this shape, with T5 and EnCodec left at their defaults."""
    from transformers import MusicgenDecoderConfig

    return MusicgenConfig(**config_parts(spec, MusicgenDecoderConfig))


def make_positions(decoder: Any, device: torch.device, dtype: torch.dtype) -> None:
    """The sinusoidal table is computed, not stored: made in fp32 on the CPU, as the full model's, then cast."""
    positions = decoder.model.decoder.embed_positions
    table = positions.get_embedding(positions.num_positions, positions.embedding_dim)
    positions.register_buffer("weights", table.to(device, dtype), persistent=False)
