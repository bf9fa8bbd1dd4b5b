"""MusicGen's files as the hub has them: one transformers checkpoint of text encoder, codec and decoder.

Read from config.json alone, without transformers; what is absent there has transformers' default.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep import weight_file
from data_prep.checkpoint_files import INDEX, checkpoint_files
from data_prep.families import BaseFormat, Problem
from data_prep.lm_spec import TEXT, ConditionKind, LMSpec, interleaved_lags

NEEDED_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "model*.safetensors",
    INDEX,
)
LICENCES = {"facebook/musicgen-": "cc-by-nc-4.0"}
"""Of Meta's weights, by their model cards."""
KINDS = {
    ".self_attn.": "self attention",
    ".encoder_attn.": "cross attention",
    "decoder.layers.": "feed-forward",
    "embed_tokens": "embeddings",
    "lm_heads": "heads",
    "enc_to_dec_proj": "text projection",
}
"""What a module is, by a part of its name; the first that fits counts."""
_OF_A_LAYER = r"layers\.\d+\.(self_attn|encoder_attn|fc1|fc2)"
ROOTS = {
    rf"model\.decoder\.({_OF_A_LAYER}|embed_tokens)": "decoder.",  # MusicgenForCausalLM
    r"lm_heads\.\d+": "decoder.",
    rf"decoder\.({_OF_A_LAYER}|embed_tokens)": "decoder.model.",  # MusicgenModel
    rf"({_OF_A_LAYER}|embed_tokens)": "decoder.model.decoder.",  # MusicgenDecoder
}
"""Names that begin inside the whole model, and what stands above them there."""


@dataclass(frozen=True)
class MusicgenSpec(LMSpec):
    """A MusicGen decoder. `projected`: the text states pass a projection on their way to cross-attention."""

    projected: bool = True


class MusicgenFormat(BaseFormat):
    """The text-to-music models, mono and stereo."""

    family = "musicgen"
    needed_files = NEEDED_FILES
    licences = LICENCES
    tags = ("musicgen",)
    transformers_class = "MusicgenForConditionalGeneration"
    movable = ("pattern", "text encoder", "codec")
    parts = {"codec": "audio_encoder", "text_encoder": "text_encoder"}  # noqa: RUF012

    def recognises(self, folder: Path, config: Mapping[str, Any]) -> bool:
        """By the `model_type` of its config.json."""
        return config.get("model_type") == self.family

    def problems(self, folder: Path, config: Mapping[str, Any]) -> Iterator[Problem]:
        """Pickled, missing or damaged weights; a missing tokenizer."""
        present = [path.exists() for path in self.weight_files(folder)]
        if not all(present) and list(folder.glob("*.bin")):
            yield (
                "its weights are pickled (.bin), which could run code while loading.",
                f"Convert them once, where you trust the file: `{config['architectures'][0]}.from_pretrained(folder)"
                ".save_pretrained(new_folder)` and the same for its AutoProcessor; then give the new folder.",
            )
        if not all(present):
            yield "its model.safetensors, or a shard of it, is missing.", "Fetch or copy it again."
        yield from filter(None, map(weight_file.problem, self.weight_files(folder)))
        if not list(folder.glob("tokenizer*")) and not (folder / "spiece.model").exists():
            yield (
                "its tokenizer files are missing.",
                "Copy tokenizer.json and tokenizer_config.json beside config.json.",
            )

    def spec(self, folder: Path, config: Mapping[str, Any]) -> LMSpec:
        """From config.json."""
        decoder, text = config.get("decoder", {}), config.get("text_encoder", {})
        text_width, hidden = text.get("d_model", 512), decoder.get("hidden_size", 1024)
        return MusicgenSpec(
            **shared_fields(self.family, config),
            conditions=(ConditionKind(TEXT, text_width),),
            projected=text_width != hidden and decoder.get("cross_attention_hidden_size") is None,
            adds_frames=True,
        )

    def module_kind(self, module: str) -> str | None:
        """In the words of a decoder layer."""
        return next((kind for part, kind in KINDS.items() if part in module), None)

    def whole_name(self, module: str) -> str:
        """Of a module named from the decoder with its heads, without them, or from the stack of layers."""
        above = next((above for start, above in ROOTS.items() if re.match(start, module)), "")
        return above + module

    def weight_files(self, folder: Path) -> list[Path]:
        """The shards of the index, or the one file."""
        return checkpoint_files(folder)


def shared_fields(family: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What every MusicGen decoder's configuration says, as fields of an `LMSpec`."""
    decoder, codec = config.get("decoder", {}), config.get("audio_encoder", {})
    channels, n_codebooks = decoder.get("audio_channels", 1), decoder.get("num_codebooks", 4)
    return {
        "family": family,
        "codec": codec.get("model_type", "encodec"),
        "sample_rate_hz": codec.get("sampling_rate", 24_000),
        "hop_samples": math.prod(codec.get("upsampling_ratios", (8, 5, 4, 2))),
        "channels": channels,
        "n_codebooks": n_codebooks,
        "card": decoder.get("vocab_size", 2048),
        "lags": interleaved_lags(n_codebooks, channels),
        "hidden": decoder.get("hidden_size", 1024),
        "layers": decoder.get("num_hidden_layers", 24),
        "heads": decoder.get("num_attention_heads", 16),
        "ffn": decoder.get("ffn_dim", 4096),
        "positions": decoder.get("max_position_embeddings", 2048),
        "activation": decoder.get("activation_function", "gelu"),
    }


def spec_of_sizes(
    hidden: int,
    layers: int,
    heads: int,
    ffn: int,
    *,
    channels: int = 1,
    card: int = 2048,
    text_width: int = 768,
    positions: int = 2048,
) -> MusicgenSpec:
    """A decoder of these sizes with everything else as Meta's models have it: four codebooks a channel, 50 Hz, T5."""
    config = config_of_sizes(hidden, layers, heads, ffn, channels, vocab_size=card, max_position_embeddings=positions)
    text = ConditionKind(TEXT, text_width)
    return MusicgenSpec(**shared_fields("musicgen", config), conditions=(text,), projected=text_width != hidden)


def config_of_sizes(hidden: int, layers: int, heads: int, ffn: int, channels: int, **more: int) -> dict[str, Any]:
    """What `shared_fields` reads of such a model's config.json; `more` are further fields of its decoder."""
    decoder = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "ffn_dim": ffn,
        "num_codebooks": 4 * channels,
        "audio_channels": channels,
    }
    codec = {"sampling_rate": 32_000, "upsampling_ratios": [8, 5, 4, 4]}
    return {"audio_encoder": codec, "decoder": decoder | more}


FORMAT = MusicgenFormat()
