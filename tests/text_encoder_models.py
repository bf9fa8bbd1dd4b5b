"""Small random text encoders of transformers in folders of their own, as `save_pretrained` leaves them."""

from pathlib import Path
from typing import Any

import torch

from data_prep.debug_tokenizer import write_tokenizer

SMALL: dict[str, Any] = {"num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}
KINDS = ("t5", "flan", "long-t5", "clap", "bert")


def write_text_encoder(folder: Path, kind: str, width: int = 20, seed: int = 0) -> Path:
    """T5 and LongT5 whole, with their decoders; Flan-T5 (gated) as an encoder; CLAP with its audio side; BERT."""
    import transformers

    folder.mkdir(parents=True)
    n_tokens = write_tokenizer(folder)
    torch.manual_seed(seed)
    t5: dict[str, Any] = {"d_model": width, "d_ff": 24, "d_kv": 8, "num_heads": 2, "num_layers": 2}
    t5["vocab_size"] = n_tokens
    if kind == "t5":
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(**t5))
    elif kind == "flan":
        model = transformers.T5EncoderModel(transformers.T5Config(**t5, feed_forward_proj="gated-gelu"))
    elif kind == "long-t5":
        model = transformers.LongT5ForConditionalGeneration(transformers.LongT5Config(**t5))
    elif kind == "clap":
        text: dict[str, Any] = {**SMALL, "hidden_size": width, "vocab_size": n_tokens, "max_position_embeddings": 40}
        audio: dict[str, Any] = {"patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1]}
        audio |= {"num_attention_heads": [2, 2], "spec_size": 32, "patch_size": 4, "patch_stride": [4, 4]}
        audio["window_size"] = 4
        model = transformers.ClapModel(transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=8))
    else:
        model = transformers.BertModel(transformers.BertConfig(**SMALL, hidden_size=width, vocab_size=n_tokens))
    model.eval().save_pretrained(folder)
    return folder
