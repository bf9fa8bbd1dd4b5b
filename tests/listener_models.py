"""Tiny random models in the files that transformers' own models have: what loads the real ones loads these."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AudioFlamingo3EncoderConfig,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapProcessor,
    MusicFlamingoConfig,
    MusicFlamingoForConditionalGeneration,
    MusicFlamingoProcessor,
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    WhisperFeatureExtractor,
)

_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {% for c in m['content'] %}"
    "{% if c['type'] == 'audio' %}AUDIO_TOKEN{% else %}{{ c['text'] }}{% endif %} {% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)
_SPECIAL = {
    "qwen2-audio": ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
    "music-flamingo": ("<sound>", "<|sound_bos|>", "<|sound_eos|>"),
}
_TEXT = "a slow fast song piece with piano guitar strings drums and calm loud music the sound of rock jazz"
_WORDS = _TEXT.split()
_DECODER: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
}
_EARS: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "num_mel_bins": 80,
}


def tokenizer(special: tuple[str, ...]) -> PreTrainedTokenizerFast:
    names = ["<pad>", "<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", *special, *_WORDS]
    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>", *special],
        model_max_length=4096,
    )


def write_clap(folder: Path, seed: int = 0) -> Path:
    """A CLAP at 16 kHz, a few kilobytes large."""
    torch.manual_seed(seed)
    words = tokenizer(())
    text: dict[str, Any] = {
        "vocab_size": len(words),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "projection_dim": 8,
        "max_position_embeddings": 70,
        "pad_token_id": 0,
    }
    audio: dict[str, Any] = {
        "spec_size": 64,
        "num_mel_bins": 16,
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1],
        "hidden_size": 16,
        "num_attention_heads": [1, 1],
        "window_size": 4,
        "projection_dim": 8,
        "patch_size": 4,
        "patch_stride": [4, 4],
    }
    model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=8))
    ears = ClapFeatureExtractor(
        feature_size=16, sampling_rate=16_000, hop_length=800, max_length_s=10, fft_window_size=1024, frequency_max=7000
    )
    ClapProcessor(ears, words).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def write_audio_lm(folder: Path, name: str, seed: int = 0) -> Path:
    """A Qwen2-Audio or a Music Flamingo that hears 30 s and writes nonsense of a few words."""
    torch.manual_seed(seed)
    token, begin, end = _SPECIAL[name]
    words = tokenizer(_SPECIAL[name])
    ids: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    text = Qwen2Config(vocab_size=len(words), **_DECODER, **ids)
    ears = WhisperFeatureExtractor(feature_size=80)
    chat = _CHAT.replace("AUDIO_TOKEN", token if name == "music-flamingo" else f"{begin}{token}{end}")
    where: dict[str, Any] = {"audio_token_id": words.convert_tokens_to_ids(token)}
    model: Any
    if name == "qwen2-audio":
        config = Qwen2AudioConfig(
            audio_config=Qwen2AudioEncoderConfig(**_EARS), text_config=text, audio_token_index=where["audio_token_id"]
        )
        model = Qwen2AudioForConditionalGeneration(config)
        Qwen2AudioProcessor(ears, words, chat_template=chat).save_pretrained(folder)
    else:
        where["audio_bos_token_id"] = words.convert_tokens_to_ids(begin)
        where["audio_eos_token_id"] = words.convert_tokens_to_ids(end)
        heard = AudioFlamingo3EncoderConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_mel_bins=80
        )
        model = MusicFlamingoForConditionalGeneration(
            MusicFlamingoConfig(audio_config=heard, text_config=text, **where)
        )
        MusicFlamingoProcessor(
            ears, words, chat_template=chat, audio_token=token, audio_bos_token=begin, audio_eos_token=end
        ).save_pretrained(folder)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 3
    model.save_pretrained(folder)
    return folder
