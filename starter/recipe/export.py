"""Put codec, language model, text encoder and tokenizer into one MusicGen folder that transformers loads.

    python -m starter.recipe.export /tmp/starter/codec /tmp/starter/lm starter/weights --size cpu

Half precision, safetensors, in shards below 12 MB.
"""

import argparse
import copy
import json
import shutil
from pathlib import Path

import torch
from transformers import GenerationConfig, MusicgenForConditionalGeneration

from finetune.codec_train.export import to_encodec
from finetune.codec_train.model import CodecModel
from starter.recipe.lm_model import TextToCodes
from starter.recipe.sizes import CODEC_SIZES, LM_SIZES
from starter.recipe.stage import load_module
from starter.recipe.train_lm import build

SHARD_SIZE = "12MB"


def export(codec: CodecModel, lm: TextToCodes, tokenizer_folder: Path, folder: Path) -> Path:
    """Write the folder anew."""
    encodec = to_encodec(codec)
    # Copies, because the whole model rewrites the configurations of what it is given.
    text_encoder, decoder = copy.deepcopy((lm.text_encoder, lm.lm.decoder))
    model = MusicgenForConditionalGeneration(text_encoder=text_encoder, audio_encoder=encodec, decoder=decoder)
    if lm.lm.enc_to_dec_proj is not None:
        model.enc_to_dec_proj.load_state_dict(lm.lm.enc_to_dec_proj.state_dict())
    card = lm.lm.card
    model.generation_config = GenerationConfig(
        bos_token_id=card, pad_token_id=card, decoder_start_token_id=card,
        do_sample=True, guidance_scale=3.0, max_length=1500,
    )  # fmt: skip
    if folder.exists():
        shutil.rmtree(folder)
    model.half().save_pretrained(folder, max_shard_size=SHARD_SIZE)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_folder / name, folder / name)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(_preprocessor(codec.settings.sample_rate_hz), indent=2) + "\n"
    )
    return folder


def _preprocessor(sample_rate_hz: int) -> dict[str, object]:
    return {
        "feature_extractor_type": "EncodecFeatureExtractor",
        "processor_class": "MusicgenProcessor",
        "feature_size": 1,
        "sampling_rate": sample_rate_hz,
        "chunk_length_s": None,
        "overlap": None,
        "padding_side": "left",
        "padding_value": 0.0,
        "return_attention_mask": True,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codec", type=Path)
    parser.add_argument("lm", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=sorted(LM_SIZES), default="gpu" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    codec = CodecModel(CODEC_SIZES[args.size])
    load_module(args.codec, "model", codec)
    lm = build(args.lm, LM_SIZES[args.size], CODEC_SIZES[args.size])
    load_module(args.lm, "model", lm)
    export(codec, lm, args.lm, args.folder)
    total = sum(path.stat().st_size for path in args.folder.iterdir())
    print(f"{args.folder}: {total / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
