"""MusicGen-melody: text and a melody to music (Copet et al. 2023, arXiv:2306.05284), as transformers publishes it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapters.decode.engine import Engine, Packing
from adapters.family.lm import LM
from adapters.family.musicgen.family import ALL_FOUR, LAYER, POSITIONS, MusicgenFamily
from adapters.family.musicgen_melody.engine import MelodyEngine
from adapters.family.musicgen_melody.lm import MelodyLM, config_of
from adapters.tensor_stream import StoredTensors
from data_prep.lm_spec import LMSpec

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles

PREFIXES = ("decoder.", "enc_to_dec_proj.", "audio_enc_to_dec_proj.")


class MelodyFamily(MusicgenFamily):
    """The decoder and the projections of text and melody before it."""

    name = "musicgen_melody"
    targets = {  # noqa: RUF012
        "attention": rf"{LAYER}self_attn{ALL_FOUR}",
        "self_attention": rf"{LAYER}self_attn{ALL_FOUR}",
        "q": rf"{LAYER}self_attn\.q_proj",
        "k": rf"{LAYER}self_attn\.k_proj",
        "v": rf"{LAYER}self_attn\.v_proj",
        "out": rf"{LAYER}self_attn\.out_proj",
        "ffn": rf"{LAYER}(fc1|fc2)",
        "text_projection": "enc_to_dec_proj",
        "melody_projection": "audio_enc_to_dec_proj",
    }
    elsewhere = {  # noqa: RUF012
        "text_encoder": "the text encoder, which Woodshed leaves as it is",
        "audio_encoder": "the codec, which Woodshed leaves as it is",
    }
    card_tags = ("transformers", "musicgen", "musicgen-melody")

    def from_spec(self, spec: LMSpec) -> LM:
        """Whatever the spec does not say has transformers' default."""
        return MelodyLM(spec, config_of(spec))

    def build(self, files: "BaseFiles") -> LM:
        """From the base's config.json."""
        return MelodyLM.of(files)

    def stored(self, files: "BaseFiles") -> StoredTensors:
        """The checkpoint's own names."""
        stored = StoredTensors(files.weight_files)
        return stored.only(name for name in stored if name.startswith(PREFIXES) and name != POSITIONS)

    def pack(self, lm: LM, packing: Packing) -> Engine:
        """MusicGen's engine, with a prefix."""
        return MelodyEngine.pack(lm, lm.spec, packing)

    def borrow(self, lm: LM) -> Engine:
        """The same around the model's own modules."""
        return MelodyEngine.borrow(lm, lm.spec)

    def snippet(self, base: str, adapter: str, prompt: str) -> Iterator[str]:
        """With transformers' own model class."""
        for line in super().snippet(base, adapter, prompt):
            yield line.replace("MusicgenForConditionalGeneration", "MusicgenMelodyForConditionalGeneration")


FAMILY = MelodyFamily()
