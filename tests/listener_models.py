"""Tiny random models in the files that transformers' own models have: what loads the real ones loads these."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
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
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
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
    "qwen2.5-omni": ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
}
_TEXT = "a slow fast song piece with piano guitar strings drums and calm loud music the sound of rock jazz"
_WORDS = _TEXT.split()
_DECODER: dict[str, Any] = {
    "hidden_size": 64,  # bitsandbytes on a CPU packs 32 rows together
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
}
_EARS: dict[str, Any] = {
    "d_model": 64,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
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


def write_omni(folder: Path, seed: int = 0) -> Path:
    """A Qwen2.5-Omni as the hub has it: one configuration of all its parts, and the thinker's weights under `thinker.`
    beside the talker's, which nobody reads. It writes nonsense.
    """
    torch.manual_seed(seed)
    token, begin, end = _SPECIAL["qwen2.5-omni"]
    words = tokenizer(_SPECIAL["qwen2.5-omni"])
    chat = _CHAT.replace("AUDIO_TOKEN", f"{begin}{token}{end}")
    audio: dict[str, Any] = {**_EARS, "output_dim": 64, "n_window": 100, "num_mel_bins": 80}
    seeing: dict[str, Any] = {"depth": 1, "hidden_size": 64, "intermediate_size": 64, "num_heads": 2}
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 6, 6]}
    text: dict[str, Any] = {**_DECODER, "vocab_size": len(words), "rope_parameters": rope}
    ids = {"audio_token_index": words.convert_tokens_to_ids(token), "image_token_index": 1, "video_token_index": 1}
    ids |= {"vision_start_token_id": 1, "vision_end_token_id": 1}
    ids |= {"audio_start_token_id": words.convert_tokens_to_ids(begin)}
    ids |= {"audio_end_token_id": words.convert_tokens_to_ids(end)}
    config = Qwen2_5OmniThinkerConfig(
        audio_config=audio, text_config=text, vision_config={**seeing, "out_hidden_size": 64}, **ids
    )
    model = Qwen2_5OmniThinkerForConditionalGeneration(config)
    weights = {_name_on_the_hub(name): tensor.contiguous() for name, tensor in model.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {**weights, "talker.codec_head.weight": torch.zeros(2, 2)}, folder / "model.safetensors", {"format": "pt"}
    )
    whole = {"model_type": "qwen2_5_omni", "thinker_config": config.to_dict(), "enable_audio_output": True}
    (folder / "config.json").write_text(json.dumps(whole))
    (folder / "generation_config.json").write_text(json.dumps({"pad_token_id": 0, "eos_token_id": 3}))
    WhisperFeatureExtractor(feature_size=80, chunk_length=300).save_pretrained(folder)
    words.save_pretrained(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": chat}))
    return folder


def _name_on_the_hub(name: str) -> str:
    """Qwen/Qwen2.5-Omni-7B's index names the thinker's weights so."""
    for ours, theirs in (
        ("model.language_model.", "model."),
        ("model.audio_tower.", "audio_tower."),
        ("model.visual.", "visual."),
    ):
        if name.startswith(ours):
            return f"thinker.{theirs}{name.removeprefix(ours)}"
    return f"thinker.{name}"


def write_audio_lm(folder: Path, name: str, seed: int = 0) -> Path:
    """A Qwen2-Audio, Qwen2.5-Omni or Music Flamingo that hears 30 s and writes nonsense of a few words."""
    if name == "qwen2.5-omni":
        return write_omni(folder, seed)
    torch.manual_seed(seed + 1)
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
            hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, num_mel_bins=80
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
