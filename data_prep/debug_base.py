"""Random MusicGen bases in the hub's own format: tiny ones for trying and testing, full-size ones for benchmarks.

The weights mean nothing, but they are scaled so that nothing is degenerate: the codec is neither silent nor constant,
the LM's logits differ. No model is built in memory: each tensor is drawn by its name and shape and written.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.errors import UserError
from data_prep.debug_tokenizer import write_tokenizer
from data_prep.safe_write import folder_beside

SAMPLE_RATE_HZ = 32_000
UPSAMPLING = (8, 5, 4, 4)  # 640 samples per frame: 50 frames per second, as in every MusicGen
FRAME_RATE_HZ = 50
T5_BASE = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "vocab_size": 32128}
FULL_CODEC = {"num_filters": 64, "hidden_size": 128, "codebook_size": 2048}
# Sizes of the models on the hub, from their config.json: D, layers, heads, feed-forward.
SIZES = {"small": (1024, 24, 16, 4096), "medium": (1536, 48, 24, 6144), "large": (2048, 48, 32, 8192)}
TRUE_CONFIGS = {
    f"facebook/musicgen-{stereo}{size}": (shape, channels)
    for size, shape in SIZES.items()
    for stereo, channels in (("", 1), ("stereo-", 2))
}
MELODY_CONFIGS = {
    f"facebook/musicgen-{stereo}melody{suffix}": (SIZES[size], channels)
    for size, suffix in (("medium", ""), ("large", "-large"))
    for stereo, channels in (("", 1), ("stereo-", 2))
}
"""The melody models have the sizes of medium and large (their model cards)."""
DEBUG_CHROMA = {"n_fft": 2048, "hop_length": 4096, "sampling_rate": 32_000, "num_chroma": 12, "feature_size": 12}
TRUE_CHROMA = {**DEBUG_CHROMA, "n_fft": 16_384}
"""Of the debug base: an eighth of the transform; and the hub's. Both have 7.8 entries a second."""


def write_debug_base(
    folder: Path,
    *,
    audio_channels: int = 1,
    melody: bool = False,
    hidden: int = 16,
    layers: int = 2,
    heads: int = 2,
    ffn: int = 32,
    card: int = 64,
    text_width: int = 12,
    codec_filters: int = 2,
    codec_width: int = 8,
    seed: int = 0,
) -> Path:
    """Write a tiny complete base: about 60,000 weights. `card` is a power of 2; `text_width` and `hidden` are even."""
    text = {"d_model": text_width, "d_kv": 4, "d_ff": 2 * text_width, "num_layers": 2, "num_heads": 2}
    codec = {"num_filters": codec_filters, "hidden_size": codec_width, "codebook_size": card, "num_lstm_layers": 1}
    config = base_config((hidden, layers, heads, ffn), audio_channels, text=text, codec=codec, melody=melody)
    return _write_base(folder, config, seed=seed, dtype=torch.float32, shard_bytes=2**40)


def write_random_base(
    folder: Path,
    like: str,
    *,
    layers: int | None = None,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = 2**31,
    seed: int = 0,
) -> Path:
    """Write a base with the true configuration of a hub model (a key of TRUE_CONFIGS or MELODY_CONFIGS) and random
    weights, in shards.

    With `layers` the decoder has so many instead of its true number.
    """
    (hidden, depth, heads, ffn), audio_channels = {**TRUE_CONFIGS, **MELODY_CONFIGS}[like]
    shape, melody = (hidden, layers or depth, heads, ffn), like in MELODY_CONFIGS
    config = base_config(shape, audio_channels, text=T5_BASE, codec=FULL_CODEC, melody=melody)
    return _write_base(folder, config, seed=seed, dtype=dtype, shard_bytes=shard_bytes)


def cached_debug_base(cache: Path, *, audio_channels: int = 1, melody: bool = False) -> Path:
    """The folder of the `debug` base, written on first use; its name follows the code that writes it."""
    sources = (Path(__file__), Path(__file__).with_name("debug_tokenizer.py"))
    version = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    folder = cache / f"debug-{'melody-' if melody else ''}{audio_channels}ch-{version}"
    if folder.is_dir():
        return folder
    try:
        again = "run the same command again; WOODSHED_CACHE can name another folder."
        with folder_beside(folder, again=again) as made:
            write_debug_base(made, audio_channels=audio_channels, melody=melody)
    except UserError:
        if not folder.is_dir():  # if it is, another process was faster: its folder is the same
            raise
    return folder


def base_config(
    shape: tuple[int, int, int, int],
    audio_channels: int,
    *,
    text: dict[str, Any],
    codec: dict[str, Any],
    melody: bool = False,
) -> Any:
    """Its configuration: (D, layers, heads, ffn) of the LM, and what differs from T5's and EnCodec's defaults."""
    from transformers import EncodecConfig, T5Config

    whole, of_decoder = _config_classes(melody)

    hidden, layers, heads, ffn = shape
    card = codec["codebook_size"]
    decoder = of_decoder(
        vocab_size=card,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        ffn_dim=ffn,
        num_codebooks=4 * audio_channels,
        audio_channels=audio_channels,
        pad_token_id=card,
        bos_token_id=card,
    )
    kbps = 4 * FRAME_RATE_HZ * math.log2(card) / 1000  # of four codebooks; 2.2 for the hub's
    audio = EncodecConfig(
        sampling_rate=SAMPLE_RATE_HZ,
        upsampling_ratios=list(UPSAMPLING),
        target_bandwidths=[kbps],
        use_causal_conv=False,
        use_conv_shortcut=False,
        **codec,
    )
    assert audio.num_quantizers == 4, audio.num_quantizers
    return whole(text_encoder=T5Config(**text), audio_encoder=audio, decoder=decoder)


def _config_classes(melody: bool) -> tuple[Any, Any]:
    import transformers

    name = "MusicgenMelody" if melody else "Musicgen"
    return getattr(transformers, f"{name}Config"), getattr(transformers, f"{name}DecoderConfig")


def _write_base(folder: Path, config: Any, *, seed: int, dtype: torch.dtype, shard_bytes: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary_size = write_tokenizer(folder)
    if config.text_encoder.d_model != T5_BASE["d_model"]:
        config.text_encoder.vocab_size = vocabulary_size
    config.architectures = [_architecture(config)]
    config.dtype = str(dtype).removeprefix("torch.")
    config.save_pretrained(folder)
    _write_json(folder / "generation_config.json", _generation(config.decoder.vocab_size))
    _write_json(folder / "preprocessor_config.json", _preprocessor(config))
    _write_shards(folder, _random_tensors(config, seed, dtype), shard_bytes)
    return folder


def _generation(card: int) -> dict[str, Any]:
    ids = {"bos_token_id": card, "pad_token_id": card, "decoder_start_token_id": card}
    return {**ids, "do_sample": True, "guidance_scale": 3.0, "max_length": 1500}


def _architecture(config: Any) -> str:
    return type(config).__name__.removesuffix("Config") + "ForConditionalGeneration"


def _preprocessor(config: Any) -> dict[str, Any]:
    if hasattr(config, "num_chroma"):
        chroma = DEBUG_CHROMA if config.text_encoder.d_model != T5_BASE["d_model"] else TRUE_CHROMA
        return {
            "feature_extractor_type": "MusicgenMelodyFeatureExtractor",
            "processor_class": "MusicgenMelodyProcessor",
            "chunk_length": 30,
            "stem_indices": [3, 2],
            **chroma,
        }
    return {
        "feature_extractor_type": "EncodecFeatureExtractor",
        "processor_class": "MusicgenProcessor",
        "feature_size": config.decoder.audio_channels,
        "sampling_rate": SAMPLE_RATE_HZ,
        "chunk_length_s": None,
        "overlap": None,
        "padding_side": "left",
        "padding_value": 0.0,
        "return_attention_mask": True,
    }


def _random_tensors(config: Any, seed: int, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the checkpoint, in the names that the hub's files use."""
    import transformers

    with torch.device("meta"):
        model = getattr(transformers, _architecture(config))(config)
    shapes = {name: t.shape for name, t in model.state_dict().items()}
    shapes.pop("text_encoder.encoder.embed_tokens.weight", None)  # tied to text_encoder.shared.weight
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(shapes):
        hub_name = name.replace(".parametrizations.weight.original0", ".weight_g")
        hub_name = hub_name.replace(".parametrizations.weight.original1", ".weight_v")
        yield hub_name, _draw(hub_name, shapes, name, generator).to(dtype).contiguous()


def _draw(hub_name: str, shapes: dict[str, torch.Size], name: str, generator: torch.Generator) -> Tensor:
    """Random values for one tensor, scaled by what it is so that signals keep their size through the layers."""
    shape = shapes[name]
    if hub_name.endswith(".weight_g"):
        return _conv_gain(hub_name, shape, shapes[name[: -len("original0")] + "original1"])
    if "quantizer" in hub_name:
        return _codebook(hub_name, shape, generator)
    if "norm" in hub_name:
        return torch.ones(shape) if hub_name.endswith("weight") else torch.zeros(shape)
    values = torch.randn(shape, generator=generator)
    if hub_name.endswith("bias") or "bias_" in hub_name:
        return 0.02 * values
    if hub_name.endswith(".weight_v") or "embed_tokens" in hub_name or "shared" in hub_name:
        return values
    if "relative_attention_bias" in hub_name:
        return 0.5 * values
    gain = 2.0 if "lm_heads" in hub_name else 1.0  # logits with a spread of about 2
    if hub_name.endswith("SelfAttention.q.weight"):
        gain = 0.5  # T5 does not scale its attention scores
    return gain * values / math.sqrt(shape[-1])


def _conv_gain(hub_name: str, shape: torch.Size, direction: torch.Size) -> Tensor:
    """Weight norm's g. A transposed convolution is normed over its input channels and two taps meet at each output."""
    last = hub_name.startswith("audio_encoder.decoder.") and direction[0] == 1
    if hub_name.startswith("audio_encoder.decoder.") and direction[2] % 2 == 0:  # only those have even kernels
        inputs, outputs, taps = direction
        return torch.full(shape, 1.3 * math.sqrt(outputs * taps / (2 * inputs)))
    return torch.full(shape, 0.03 if last else 1.3)


def _codebook(hub_name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if hub_name.endswith(("inited", "cluster_size")):
        return torch.ones(shape)
    level = int(hub_name.split("quantizer.layers.")[1].split(".")[0])
    return torch.randn(shape, generator=generator) * 0.6**level


def _write_shards(folder: Path, tensors: Iterator[tuple[str, Tensor]], shard_bytes: int) -> None:
    """One model.safetensors, or numbered shards with an index, never more than about one shard in memory."""
    from safetensors.torch import save_file

    shards: list[list[str]] = []
    shard: dict[str, Tensor] = {}
    total_bytes = 0

    def flush() -> None:
        save_file(shard, folder / f"shard-{len(shards)}.part", metadata={"format": "pt"})
        shards.append(list(shard))
        shard.clear()

    for name, tensor in tensors:
        shard[name] = tensor
        total_bytes += tensor.nbytes
        if sum(t.nbytes for t in shard.values()) >= shard_bytes:
            flush()
    if shard:
        flush()
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    names = names if len(names) > 1 else ["model.safetensors"]
    for number, name in enumerate(names):
        (folder / f"shard-{number}.part").rename(folder / name)
    if len(names) > 1:
        weight_map = {tensor: name for name, held in zip(names, shards, strict=True) for tensor in held}
        index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
        _write_json(folder / "model.safetensors.index.json", index)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
