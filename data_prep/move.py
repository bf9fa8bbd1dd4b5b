"""What a language model is moved to by an adapter: another codebook pattern, text encoder, or codec under it.

The base's files stay as they are. `BaseFiles.moved` puts a `Move` beside them, and whoever asks them for the model's
description, its codec or its text encoder gets those that it is moved to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from configs.errors import UserError
from data_prep.codec.spec import CodecSpec
from data_prep.lm_spec import TEXT, LMSpec, interleaved_lags
from data_prep.pattern_choice import PatternChoice

CODES, WORDS = "codes", "text"
"""Parts of a model that learn whole, not by low rank: tables and heads of the codes; the projection of text states."""


@dataclass(frozen=True)
class TextChoice:
    """Another text encoder: where it is (a folder or a hub id), what it is, and the width of its states."""

    id: str
    fingerprint: str
    width: int


@dataclass(frozen=True)
class CodecChoice:
    """Another codec: where it is (a folder or a hub id), its kind (`dac`), what it is, and its numbers."""

    id: str
    kind: str
    fingerprint: str
    shape: CodecSpec


@dataclass(frozen=True)
class Move:
    """What is another than the base's own; None is the base's own."""

    pattern: PatternChoice | None = None
    text: TextChoice | None = None
    codec: CodecChoice | None = None

    def __bool__(self) -> bool:
        return any((self.pattern, self.text, self.codec))

    @property
    def parts(self) -> tuple[str, ...]:
        """For people: what is another."""
        named = {"pattern": self.pattern, "text encoder": self.text, "codec": self.codec}
        return tuple(name for name, choice in named.items() if choice is not None)

    def applied(self, spec: LMSpec) -> LMSpec:
        """The description of a base that is moved so.

        Raises:
            UserError: the base reads text in a way that leaves no place for a projection.
        """
        spec = spec if self.codec is None else _with_codec(spec, self.codec)
        spec = spec if self.text is None else _with_text(spec, self.text)
        return spec if self.pattern is None else spec.in_pattern(self.pattern)


def move_of_info(info: Mapping[str, Any]) -> Move:
    """What a dataset was made for, from its prep.yaml: another text encoder, another codec."""
    text, codec = info["text_encoder"], info["codec"]
    numbers = ("sample_rate_hz", "hop_samples", "channels", "n_codebooks", "card")
    return Move(
        text=TextChoice(text["id"], text["fingerprint"], text["width"]) if "id" in text else None,
        codec=CodecChoice(codec["id"], codec["kind"], codec["fingerprint"], CodecSpec(**{n: codec[n] for n in numbers}))
        if "id" in codec
        else None,
    )


def _with_codec(spec: LMSpec, codec: CodecChoice) -> LMSpec:
    shape = codec.shape
    moved = replace(
        spec,
        codec=codec.kind,
        sample_rate_hz=shape.sample_rate_hz,
        hop_samples=shape.hop_samples,
        channels=shape.channels,
        n_codebooks=shape.n_codebooks,
        card=shape.card,
        lags=interleaved_lags(shape.n_codebooks, shape.channels),
        learns_whole=(*spec.learns_whole, CODES),
    )
    return moved.with_positions()


def _with_text(spec: LMSpec, text: TextChoice) -> LMSpec:
    projected = getattr(spec, "projected", None)
    if projected is None or (not projected and spec.text_width != spec.hidden):
        raise UserError(
            f"A base of the family {spec.family} whose text states reach it without a projection keeps its own "
            "text encoder.",
            where="text_encoder",
            fix="Leave --text_encoder out, or use a MusicGen base.",
        )
    kinds = tuple(replace(kind, width=text.width) if kind.name == TEXT else kind for kind in spec.conditions)
    more: dict[str, Any] = {"projected": True}
    return replace(spec, conditions=kinds, learns_whole=(*spec.learns_whole, WORDS), **more)
