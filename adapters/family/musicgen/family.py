"""MusicGen, text to music (Copet et al. 2023, arXiv:2306.05284), as transformers publishes it."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from adapters.decode.engine import Engine, Packing
from adapters.family.lm import LM
from adapters.family.musicgen.engine import MusicgenEngine
from adapters.family.musicgen.lm import MusicgenLM, config_of, make_positions
from adapters.family.port import Family
from adapters.tensor_stream import StoredTensors
from data_prep.lm_spec import LMSpec
from data_prep.move import CODES, WORDS

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles

LAYER = r"decoder\.model\.decoder\.layers\.\d+\."
BOTH = "(self_attn|encoder_attn)"
ALL_FOUR = r"\.(q_proj|k_proj|v_proj|out_proj)"
PREFIXES = ("decoder.", "enc_to_dec_proj.")
"""Of a MusicGen checkpoint, what belongs to the LM; the rest is text encoder and codec."""
EMBEDDING = re.compile(r"decoder\.model\.decoder\.embed_tokens\.\d+")
TABLES, HEADS, PROJECTION = "decoder.model.decoder.embed_tokens.", "decoder.lm_heads.", "enc_to_dec_proj."
QUIET = 0.1
"""Of new heads: at full size they begin by being sure of codes at random, 7.3 nats where knowing nothing is 5.5."""
POSITIONS = "decoder.model.decoder.embed_positions.weights"
"""Old checkpoints hold the sinusoidal table; it is computed from the configuration, not learnt."""


class MusicgenFamily(Family):
    """The decoder and the text projection before it."""

    name = "musicgen"
    targets = {  # noqa: RUF012
        "attention": rf"{LAYER}{BOTH}{ALL_FOUR}",
        "self_attention": rf"{LAYER}self_attn{ALL_FOUR}",
        "cross_attention": rf"{LAYER}encoder_attn{ALL_FOUR}",
        "q": rf"{LAYER}{BOTH}\.q_proj",
        "k": rf"{LAYER}{BOTH}\.k_proj",
        "v": rf"{LAYER}{BOTH}\.v_proj",
        "out": rf"{LAYER}{BOTH}\.out_proj",
        "ffn": rf"{LAYER}(fc1|fc2)",
        "text_projection": "enc_to_dec_proj",
    }
    elsewhere = {  # noqa: RUF012
        "text_encoder": "the text encoder, which Woodshed leaves as it is",
        "audio_encoder": "the codec, which Woodshed leaves as it is",
        "audio_enc_to_dec_proj": "the melody projection, which only melody-conditioned bases have",
    }

    def from_spec(self, spec: LMSpec) -> LM:
        """Whatever the spec does not say has transformers' default."""
        return MusicgenLM(spec, config_of(spec))

    def build(self, files: "BaseFiles") -> LM:
        """From the base's config.json."""
        return MusicgenLM.of(files)

    def stored(self, files: "BaseFiles") -> StoredTensors:
        """The checkpoint's own names."""
        stored = StoredTensors(files.weight_files)
        return stored.only(name for name in stored if name.startswith(PREFIXES) and name != POSITIONS)

    def is_quantised(self, name: str) -> bool:
        """The linear layers inside the decoder's layers; embeddings, norms, heads and the projection are not."""
        return ".layers." in name and name.endswith(("_proj.weight", ".fc1.weight", ".fc2.weight"))

    def whole_shapes(
        self, parts: Sequence[str], *, n_codebooks: int, card: int, hidden: int, text_width: int
    ) -> dict[str, tuple[int, ...]]:
        """Tables and heads of the codes; the text projection."""
        shapes: dict[str, tuple[int, ...]] = {}
        if CODES in parts:
            shapes |= {f"{TABLES}{k}.weight": (card + 1, hidden) for k in range(n_codebooks)}
            shapes |= {f"{HEADS}{k}.weight": (card, hidden) for k in range(n_codebooks)}
        if WORDS in parts:
            shapes |= {f"{PROJECTION}weight": (hidden, text_width), f"{PROJECTION}bias": (hidden,)}
        return shapes

    def replaced(self, parts: Sequence[str]) -> dict[str, tuple[str, float]]:
        """Like the first codebook's, and like the base's own projection where it has one; heads a tenth of that."""
        codes = {TABLES: (f"{TABLES}0.weight", 1.0), HEADS: (f"{HEADS}0.weight", QUIET)} if CODES in parts else {}
        return codes | ({PROJECTION: (f"{PROJECTION}weight", 1.0)} if WORDS in parts else {})

    def complete(self, lm: LM, device: torch.device, dtype: torch.dtype) -> None:
        """Positions are computed."""
        make_positions(lm.decoder, device, dtype)

    def is_embedding(self, module: str) -> bool:
        """The codebooks' tables."""
        return EMBEDDING.fullmatch(module) is not None

    def pack(self, lm: LM, packing: Packing) -> Engine:
        """MusicGen's own engine."""
        return MusicgenEngine.pack(lm, lm.spec, packing)

    def borrow(self, lm: LM) -> Engine:
        """MusicGen's own engine, around the model's own modules."""
        return MusicgenEngine.borrow(lm, lm.spec)


FAMILY = MusicgenFamily()
