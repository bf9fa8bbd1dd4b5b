"""Training the peer's way on a prepared dataset, from start-up to saved adapter: a stage of `end_to_end --peer`.

    uv run python -m benchmarks.peer_run data/mine out/ --steps 20

The same clips, the same total batch and as many steps as our own run had; the whole model is loaded from the same base.
Audio is not encoded again: that the peer does it once too is left to its favour. On a GPU it computes in mixed fp16, as
its configuration says; on a CPU in mixed bf16 where the processor has it, else in fp32, which is faster there.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from adapters.family.memory import StepPlan
from benchmarks.peer import ALPHA, DROPOUT, LINEAR_TARGETS, RANK
from data_prep.base_files import resolve_base
from data_prep.device import cpu_has_bf16
from data_prep.prepared import PreparedDataset
from finetune.commands.plan import spec_of_base


def load(folder: Path, codebooks: int) -> Any:
    """The whole model with the peer's adapter, ready to train."""
    from peft import LoraConfig, get_peft_model
    from transformers import MusicgenForConditionalGeneration

    model: Any = MusicgenForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    model.freeze_audio_encoder()
    model.freeze_text_encoder()
    for config in (model.config, model.config.decoder):
        config.decoder_start_token_id = config.pad_token_id = model.config.decoder.vocab_size
    model.enable_input_require_grads()
    numbered = [f"{table}.{k}" for table in ("lm_heads", "embed_tokens") for k in range(codebooks)]
    targets = [*LINEAR_TARGETS, *numbered]
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, bias="none", target_modules=targets)
    adapted = get_peft_model(model, config)
    adapted.gradient_checkpointing_enable()
    return adapted.train()


def batches(dataset: PreparedDataset, tokenizer: Any, plan: StepPlan, size: int) -> list[dict[str, torch.Tensor]]:
    """All training clips once, in the order of the dataset, padded to the longest of each batch."""
    from benchmarks.peer import delayed_labels

    rows = dataset.clips("train")
    made = []
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        codes = [torch.from_numpy(dataset.codes(row.id)[:, : plan.frames].copy()).long() for row in part]
        longest = max(clip.shape[1] for clip in codes)
        labels = torch.full((len(part), longest + plan.spec.largest_lag, plan.spec.n_codebooks), -100)
        for row, clip in zip(labels, codes, strict=True):
            one = delayed_labels(clip[None], plan)[0]
            row[: len(one)] = one
        text = tokenizer([row.captions[0] for row in part], return_tensors="pt", padding=True)
        made.append({"input_ids": text.input_ids, "attention_mask": text.attention_mask, "labels": labels})
    return made


def main() -> None:
    """Load, train, save."""
    from transformers import AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--accumulation", type=int, default=4)
    parser.add_argument("--max-sec", type=float, default=30.0)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = PreparedDataset(args.data)
    files = resolve_base(dataset.info["base"]["id"], dataset.info["base"]["revision"])
    spec = files.spec
    plan = StepPlan(spec, "fp32", "fp32", 0, args.batch, round(args.max_sec * spec.frame_rate))
    model = load(files.folder, spec.n_codebooks).to(device)
    made = batches(dataset, AutoTokenizer.from_pretrained(files.folder), plan, args.batch)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4, betas=(0.9, 0.99))
    scaler = torch.amp.GradScaler(enabled=device == "cuda")
    mixed = torch.float16 if device == "cuda" else torch.bfloat16 if cpu_has_bf16() else None
    place = 0
    for _ in range(args.steps):
        for _ in range(args.accumulation):
            batch = {name: tensor.to(device) for name, tensor in made[place % len(made)].items()}
            with torch.autocast(device, mixed or torch.bfloat16, enabled=mixed is not None):
                loss = model(**batch).loss
            scaler.scale(loss).backward()
            place += 1
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    model.save_pretrained(args.out)


def spec_of_base_id(base: str) -> Any:
    """The decoder's spec of a base by its id."""
    from configs.train import TrainSettings

    return spec_of_base(TrainSettings(base=base))


if __name__ == "__main__":
    main()
