"""The peer's way to train the same adapter: what musicgen-dreamboothing does, said again with the same libraries.

Its script (github.com/ylacombe/musicgen-dreamboothing, dreambooth_musicgen.py and example_configs/punk.json) loads
the whole MusicgenForConditionalGeneration in fp32 (text encoder, codec, decoder), attaches peft's LoRA (rank 16,
alpha 16, dropout 0.05) to the attention, the feed-forward layers, the projections, the heads and the embedding
tables, lets the input embeddings require gradients, switches gradient checkpointing on, and trains in mixed precision
under transformers' Trainer: model in training mode, the text encoder run in every step, the loss from `labels`. None
of its code is here; it does not run on the transformers release used here.

Not restated: data loading, logging, generation during evaluation.
"""

from typing import Any

import torch
from torch import Tensor, nn

from adapters.family.memory import StepPlan
from adapters.family.musicgen.lm import config_of

RANK, ALPHA, DROPOUT = 16, 16, 0.05
LINEAR_TARGETS = ("enc_to_dec_proj", "k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2")
T5_BASE = {"d_ff": 3072, "d_kv": 64, "num_layers": 12, "num_heads": 12, "vocab_size": 32128}
DECODER_DROPOUT = 0.1
"""Of MusicGen's own configurations; it is on while the peer trains, in the frozen decoder and in T5."""


class Peer:
    """Model and optimizer. `autocast` is the arithmetic of the mixed precision, None for plain fp32."""

    def __init__(
        self, plan: StepPlan, *, autocast: torch.dtype | None, checkpointing: bool, device: str = "cpu"
    ) -> None:
        self.device, self.autocast = device, autocast
        self.model = peer_model(plan, checkpointing).to(device)
        learning = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=2e-4, betas=(0.9, 0.99), weight_decay=0.1)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Forward only."""
        with torch.autocast(self.device, self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            return self.model(**batch).loss

    def step(self, batch: dict[str, Tensor]) -> None:
        """One optimizer step."""
        self.loss(batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def peer_model(plan: StepPlan, checkpointing: bool) -> Any:
    """The whole model with the peer's adapter, random weights, in training mode."""
    from peft import LoraConfig, get_peft_model
    from transformers import MusicgenForConditionalGeneration

    config: Any = config_of(plan.spec)
    for name, value in T5_BASE.items():
        setattr(config.text_encoder, name, value)
    config.decoder.dropout = DECODER_DROPOUT
    config.decoder.pad_token_id = config.decoder.bos_token_id = plan.spec.card
    config.decoder.decoder_start_token_id = plan.spec.card
    config.pad_token_id = config.decoder_start_token_id = plan.spec.card
    model: Any = MusicgenForConditionalGeneration(config)
    model.freeze_audio_encoder()
    model.freeze_text_encoder()
    numbered = [f"{table}.{k}" for table in ("lm_heads", "embed_tokens") for k in range(plan.spec.n_codebooks)]
    model.enable_input_require_grads()
    lora = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=DROPOUT,
        bias="none",
        target_modules=[*LINEAR_TARGETS, *numbered],
    )
    adapted = get_peft_model(model, lora)
    if checkpointing:
        adapted.gradient_checkpointing_enable()
    return adapted.train()


def peer_batch(codes: Tensor, text_tokens: int, plan: StepPlan, device: str = "cpu") -> dict[str, Tensor]:
    """What its collator hands over: prompt ids, and labels [B, S, K] with the delay pattern, -100 where nothing is."""
    labels = delayed_labels(codes, plan)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 32000, (len(codes), text_tokens), generator=generator)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    return {name: tensor.to(device) for name, tensor in batch.items()}


def delayed_labels(codes: Tensor, plan: StepPlan) -> Tensor:
    """Codes [B, K, T] as labels [B, S, K] with the delay pattern, -100 where nothing is."""
    B, K, T = codes.shape
    labels = torch.full((B, T + plan.spec.largest_lag, K), -100, dtype=torch.int64)
    for k in range(K):
        lag = k // plan.spec.channels
        labels[:, lag : lag + T, k] = codes[:, k]
    return labels


def trainable(model: nn.Module) -> int:
    """Numbers that learn."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
