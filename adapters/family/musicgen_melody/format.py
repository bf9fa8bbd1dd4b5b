"""MusicGen-melody's files as the hub has them: as MusicGen's, with a chroma extractor described beside them.

Read from config.json and preprocessor_config.json alone; what is absent there has transformers' default.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.family.musicgen.format import MusicgenFormat, config_of_sizes, shared_fields
from data_prep.chroma_shape import ChromaShape
from data_prep.families import Problem, read_json
from data_prep.lm_spec import TEXT, ConditionKind, LMSpec

MELODY = "melody"
CHROMA_LENGTH = 235
"""Entries of 30 s, both ends included: what the models were trained with."""


@dataclass(frozen=True)
class MelodySpec(LMSpec):
    """A MusicGen decoder that reads melody and text before the first step. `projected`: see `MusicgenSpec`."""

    projected: bool = True

    @property
    def melody(self) -> ConditionKind:
        """What the melody is."""
        return self.condition(MELODY)

    @property
    def chroma(self) -> ChromaShape:
        """How the melody is made of audio."""
        assert isinstance(self.melody.made_with, ChromaShape)
        return self.melody.made_with

    @property
    def melody_entries(self) -> int:
        """Entries of the prefix that the melody takes, with or without one."""
        return self.melody.n_entries or CHROMA_LENGTH


class MelodyFormat(MusicgenFormat):
    """The melody models, mono and stereo."""

    family = "musicgen_melody"
    tags = ("musicgen", "musicgen-melody")
    transformers_class = "MusicgenMelodyForConditionalGeneration"
    movable = ("pattern",)

    def problems(self, folder: Path, config: Mapping[str, Any]) -> Iterator[Problem]:
        """Those of MusicGen, and a chroma extractor that does not fit the model."""
        yield from super().problems(folder, config)
        spec = self.spec(folder, config)
        shape = spec.chroma
        if shape.n_chroma != spec.melody.width:
            yield (
                f"its preprocessor_config.json makes {shape.n_chroma} pitch classes, its config.json reads "
                f"{spec.melody.width}.",
                "Fetch or copy both files again, from one model.",
            )

    def spec(self, folder: Path, config: Mapping[str, Any]) -> MelodySpec:
        """From config.json, and how chroma is made from preprocessor_config.json."""
        decoder, text = config.get("decoder", {}), config.get("text_encoder", {})
        text_width, hidden = text.get("d_model", 512), decoder.get("hidden_size", 1024)
        shape = chroma_shape(read_json(folder / "preprocessor_config.json"))
        n_chroma, entries = config.get("num_chroma", 12), config.get("chroma_length", CHROMA_LENGTH)
        return MelodySpec(
            **shared_fields(self.family, config),
            conditions=(ConditionKind(TEXT, text_width, enters="prefix"), melody_kind(n_chroma, entries, shape)),
            projected=text_width != hidden,
        )

    def module_kind(self, module: str) -> str | None:
        """In the words of a decoder layer."""
        if "audio_enc_to_dec_proj" in module:
            return "melody projection"
        return super().module_kind(module)


def chroma_shape(preprocessor: Mapping[str, Any]) -> ChromaShape:
    """How the extractor that these files describe makes chroma."""
    usual = ChromaShape()
    return ChromaShape(
        preprocessor.get("sampling_rate", usual.sample_rate_hz),
        preprocessor.get("n_fft", usual.n_fft),
        preprocessor.get("hop_length", usual.hop_samples),
        preprocessor.get("num_chroma", preprocessor.get("feature_size", usual.n_chroma)),
    )


def melody_kind(n_chroma: int, entries: int, shape: ChromaShape) -> ConditionKind:
    """The melody as the LM reads it."""
    return ConditionKind(
        MELODY, n_chroma, per="frame", enters="prefix", n_entries=entries, rate_hz=shape.rate_hz, made_with=shape
    )


def spec_of_sizes(
    hidden: int, layers: int, heads: int, ffn: int, *, channels: int = 1, text_width: int = 768
) -> MelodySpec:
    """A decoder of these sizes with everything else as Meta's melody models have it."""
    config = config_of_sizes(hidden, layers, heads, ffn, channels)
    kinds = (ConditionKind(TEXT, text_width, enters="prefix"), melody_kind(12, CHROMA_LENGTH, ChromaShape()))
    return MelodySpec(**shared_fields("musicgen_melody", config), conditions=kinds, projected=text_width != hidden)


FORMAT = MelodyFormat()
