"""woodshed.json: what an adapter says of itself. The schema is published as woodshed.schema.json.

Version 2 is version 1 with `conditions`: an adapter that brings weights of its own for a condition says so, and a
program that knows only version 1 refuses it; it would use half of it. Version 3 adds `moved`: what is another than the
base's own.

Nothing here names a file or a folder of the person who made it: recordings appear as hashes only, a local base by its
folder's name. docs/adapter-format.md explains every field. It knows no tensors and opens no files.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from configs.errors import UserError
from configs.pattern_names import PatternName
from data_prep.families import formats
from data_prep.pattern_choice import PatternChoice
from data_prep.typed_paths import is_there

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles

SCHEMA_VERSION = 3
"""The newest that is read."""
PLAIN_VERSION = 1
"""What an adapter without conditions of its own is written as."""
SCHEMA_FILE = Path(__file__).with_name("woodshed.schema.json")
MAX_NAME, MAX_TRIGGER, MAX_PROMPTS, MAX_TEXT = 200, 1000, 64, 4000
MAX_SIZE, MAX_PAIR = 4096, 200
"""Characters of a name and of a trigger (what `woodshed prep` keeps of one), number of prompts, characters of each."""
Line = Annotated[str, StringConstraints(max_length=500)]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)


class BaseInfo(_Part):
    """The model that the adapter was trained on."""

    id: Line
    """Hub id, or the name of a local folder."""
    family: Line = "musicgen"
    """Family of models that it belongs to."""
    revision: Line | None = None
    """Commit on the hub."""
    weight_fingerprint: Hash
    """Over the base's tensors that the adapter changes; the same in every precision and sharding."""
    n_codebooks: Count
    """K: 4 in mono, 8 in stereo."""
    channels: Literal[1, 2]
    """Audio channels."""
    card: Count
    """Codebook size."""
    hidden_size: Count
    """D of the decoder."""
    n_layers: Count
    """Decoder layers."""
    text_width: Count
    """Width of the text states."""


class CodecInfo(_Part):
    """The codec whose tokens the adapter speaks."""

    fingerprint: Hash
    """Over the codec's tensors."""
    sample_rate_hz: Count
    """Of the audio."""
    frame_rate: Amount
    """Frames per second; no whole number in general."""


class DataInfo(_Part):
    """What it was trained on, without saying where that is."""

    n_clips: Count
    """Training clips."""
    n_validation_clips: Count = 0
    """Clips held out."""
    audio_sec: Amount
    """Seconds of training audio."""
    source_hashes: Annotated[list[Hash], Field(max_length=100_000)] = []
    """SHA-256 of each source recording's file, sorted."""


class TrainingInfo(_Part):
    """How it was trained."""

    steps: Count
    """Optimizer steps."""
    settings: dict[str, Any] = {}
    """The resolved training settings, without paths."""


class HeldOut(_Part):
    """Cross-entropy per token in nats on held-out clips, averaged over codebooks."""

    adapter: Amount
    """With the adapter."""
    base: Amount
    """Without it, on the same clips."""
    n_clips: Count
    """How many clips."""


class AddedInfo(_Part):
    """A condition that the base does not follow by itself: its weights are in conditions.safetensors."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]{0,31}$")]
    """`context` for another track, `melody`, `beat`."""
    values: Literal["codes", "floats"]
    """What there is for each codec frame: the K codes of the base's codec, or `width` numbers."""
    width: Annotated[int, Field(ge=1, le=1024)]
    """Codebooks K, or numbers per frame."""
    size: Annotated[int, Field(ge=1, le=MAX_SIZE)]
    """Width of the small vector that a frame becomes first."""
    lookahead_frames: Annotated[int, Field(ge=0, le=10_000)] = 0
    """How far ahead of the frame that it predicts a step reads."""
    stride_frames: Annotated[int, Field(ge=0, le=1024)] = 0
    """0: it is added to the input of each step. Else it is a prefix with an entry for so many frames."""
    pair: Annotated[str, StringConstraints(max_length=MAX_PAIR)] = ""
    """The part that was learnt and its context: `drums|rest`."""

    def entries_in_front(self, n_frames: int) -> int:
        """Entries of the prefix for so many frames; none where it is added to the steps."""
        return -(-(n_frames + self.lookahead_frames) // self.stride_frames) if self.stride_frames else 0


class PatternInfo(_Part):
    """Another codebook pattern than the base's own."""

    name: PatternName
    """`parallel`, `partial_delay`, `delay`, `coarse_first`, `partial_flattening` or `flattening`."""
    span_frames: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """With `coarse_first`: frames whose coarse codes come before any fine one."""

    @model_validator(mode="after")
    def _span_fits(self) -> "PatternInfo":
        PatternChoice(self.name, self.span_frames)
        return self


class TextEncoderInfo(_Part):
    """Another text encoder than the base's own."""

    name: Line
    """Hub id, or the name of a local folder."""
    fingerprint: Hash
    """Over its tensors."""
    width: Annotated[int, Field(ge=1, le=2**16)]
    """Of its states."""


class OtherCodecInfo(_Part):
    """Another codec than the base's own; `codec` says its fingerprint and sample rate."""

    name: Line
    """Hub id, or the name of a local folder."""
    kind: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    """`dac`, `encodec`, …"""
    hop_samples: Annotated[int, Field(ge=1, le=2**20)]
    """Samples per frame."""
    channels: Literal[1, 2]
    """Of the audio."""
    n_codebooks: Annotated[int, Field(ge=1, le=256)]
    """K over all channels."""
    card: Annotated[int, Field(ge=2, le=2**20)]
    """Codebook size."""


class MovedInfo(_Part):
    """What is another than the base's own; new weights for it are in conditions.safetensors."""

    pattern: PatternInfo | None = None
    """The codebook pattern."""
    text_encoder: TextEncoderInfo | None = None
    """What reads prompts; the adapter brings the projection of its states."""
    codec: OtherCodecInfo | None = None
    """What makes the codes; the adapter brings their tables and heads."""


class SourceInfo(_Part):
    """One of the models or adapters that this one was made from."""

    name: Line
    """What it is called."""
    fingerprint: Hash
    """Over its tensors (an adapter's A and B, or a tuned model's weights where they differ from the base's)."""
    weight: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    """What its ΔW was multiplied by; negative where it was taken away."""


class MadeInfo(_Part):
    """How an adapter that was not trained came about."""

    method: Line
    """`concatenate`, `svd`, `ties`, …; `extract` from a tuned model; `resize`."""
    settings: Annotated[dict[Line, float | int | Line | None], Field(max_length=64)] = {}
    """The method's own."""
    sources: Annotated[list[SourceInfo], Field(max_length=256)] = []
    """In order."""
    error: Amount = 0.0
    """What the adapter misses of the ΔW that the method asks for: relative Frobenius norm over all modules."""


class EvaluatedFinding(_Part):
    """One thing that `woodshed evaluate` found."""

    id: Annotated[str, StringConstraints(max_length=100)]
    """`style`, `without_trigger`, `forgetting`, `prompt`, `health` or `copying`."""
    text: Text
    """In a sentence or two. Names no recording."""
    level: Literal["good", "notice", "bad", "plain"] = "plain"
    """Whether that is as it should be."""
    interval: tuple[Number, Number, Number] | None = None
    """Value and the ends of its 95 % interval."""
    unit: Annotated[str, StringConstraints(max_length=20)] = ""
    """Of the interval."""


class EvaluationInfo(_Part):
    """What `woodshed evaluate` found, at the recommended strength."""

    headline: Text
    """The verdict."""
    findings: Annotated[list[EvaluatedFinding], Field(max_length=32)] = []
    """What it rests on."""
    choice: Text = ""
    """Why this checkpoint and strength."""
    embedding: Line = ""
    """What distances were measured with."""
    pieces: Count = 0
    """Pieces of each kind that were played."""


class Woodshed(_Part):
    """An adapter's description of itself."""

    schema_version: Literal[1, 2, 3] = PLAIN_VERSION
    """Version of this format. A reader refuses a version it does not know."""
    name: Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]
    """What to call it."""
    base: BaseInfo
    """The model it belongs to."""
    codec: CodecInfo
    """The codec it belongs to."""
    trigger: Annotated[str, StringConstraints(max_length=MAX_TRIGGER)] = ""
    """Words that bring its style out."""
    prompts: Annotated[list[Text], Field(max_length=MAX_PROMPTS)] = []
    """Prompts that suit it."""
    strength: tuple[Amount, Amount] = (0.0, 1.5)
    """Range of strengths worth using."""
    recommended_strength: Annotated[float, Field(gt=0, le=4, allow_inf_nan=False)] | None = None
    """The strength that was chosen by measure; what `woodshed sample` uses unless told otherwise."""
    evaluation: EvaluationInfo | None = None
    """What was measured of it."""
    data: DataInfo | None = None
    """Training data."""
    training: TrainingInfo | None = None
    """Training."""
    held_out: HeldOut | None = None
    """Evidence that it does something, on music it was not trained on."""
    made: MadeInfo | None = None
    """How it was made of others, where it was not trained."""
    conditions: Annotated[list[AddedInfo], Field(max_length=8)] = []
    """Conditions that it adds to the base's own. From version 2 on."""
    moved: MovedInfo | None = None
    """What is another than the base's own: codebook pattern, text encoder, codec. From version 3 on."""
    license: Line = "unknown"
    """Inherited from the base: cc-by-nc-4.0 for MusicGen's weights. `unknown` means: ask its author."""
    versions: dict[Line, Line] = {}
    """Versions of the libraries it was made with."""
    created: Line = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """When, in ISO 8601, UTC."""

    @model_validator(mode="after")
    def _version_fits(self) -> "Woodshed":
        if self.schema_version != version_of(self.conditions, self.moved):
            raise ValueError("conditions come with schema_version 2, and it with them; what is moved with 3")
        names = [*(info.name for info in self.conditions), "whole"]
        if len(set(names)) < len(names):
            raise ValueError("a condition is named twice")
        return self

    def as_json(self) -> str:
        """As woodshed.json holds it; what came later is left out where there is nothing to say of it."""
        unsaid: dict[str, Any] = {} if self.moved is not None else {"moved": True}
        if not any(info.stride_frames for info in self.conditions):
            unsaid["conditions"] = {"__all__": {"stride_frames"}}
        return self.model_dump_json(indent=2, exclude=unsaid) + "\n"

    def flat(self) -> dict[str, str]:
        """The same in short as flat strings, for a safetensors header: ModelSpec's keys where they fit, then ours.

        ModelSpec 1.0.1: https://github.com/Stability-AI/ModelSpec
        """
        spec = {
            "sai_model_spec": "1.0.1",
            "architecture": f"{self.base.family}/lora",
            "implementation": "https://github.com/huggingface/transformers",
            "title": self.name,
            "date": self.created,
            "license": self.license,
            "trigger_phrase": self.trigger,
            "tags": f"lora, {self.base.family}, text-to-music",
        }
        own = {
            "schema_version": str(self.schema_version),
            "base": self.base.id,
            "revision": self.base.revision or "",
            "weight_fingerprint": self.base.weight_fingerprint,
            "codec": self.codec.fingerprint,
            "prompts": json.dumps(self.prompts[:8], ensure_ascii=False),
            "strength": f"{self.strength[0]:g} {self.strength[1]:g}",
        }
        if self.held_out is not None:
            own["held_out"] = f"{self.held_out.adapter:.4f} with, {self.held_out.base:.4f} without"
        flat = {f"modelspec.{key}": value for key, value in spec.items()}
        return {k: v for k, v in (flat | {f"woodshed.{key}": value for key, value in own.items()}).items() if v}


def version_of(conditions: Sequence[AddedInfo], moved: MovedInfo | None) -> Literal[1, 2, 3]:
    """The oldest version of the format that says all of this."""
    return 3 if moved is not None else 2 if conditions else 1


def in_limits(name: str, trigger: str, prompts: Sequence[str]) -> dict[str, Any]:
    """The fields of these names, cut where they are longer than `Woodshed` allows: no work is lost to a long name."""
    told = [prompt[:MAX_TEXT] for prompt in prompts[:MAX_PROMPTS]]
    return {"name": name[:MAX_NAME], "trigger": trigger[:MAX_TRIGGER], "prompts": told}


def parse(value: dict[str, Any], where: str) -> Woodshed:
    """Read what woodshed.json holds.

    Raises:
        UserError: a newer schema, or fields that are missing, unknown or of the wrong kind.
    """
    version = value.get("schema_version")
    if type(version) is int and version > SCHEMA_VERSION:
        raise UserError(
            f"The adapter is described in format version {version}; this Woodshed knows up to {SCHEMA_VERSION}.",
            where=where,
            fix="Update Woodshed.",
        )
    try:
        return Woodshed.model_validate(value, strict=False)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part)[:60] for part in first["loc"][:6])
        raise UserError(
            f"woodshed.json does not describe an adapter: {place}: {first['msg'][:200]}"
            + (f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""),
            where=where,
            fix="Ask its author for it again.",
        ) from error


def schema() -> dict[str, Any]:
    """The JSON schema of woodshed.json, as published in woodshed.schema.json."""
    made = Woodshed.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def public_id(files: "BaseFiles") -> str:
    """A base's id as it may be told to others: a hub id, or the last part of a local folder."""
    return Path(files.id).name if is_there(files.id) else files.id


def license_of(base_id: str) -> str:
    """The licence that an adapter inherits from a base of this id: MIT from the starter, else what its family says."""
    if base_id == "starter":
        return "mit"
    found = (licence for format in formats() for start, licence in format.licences.items() if base_id.startswith(start))
    return next(found, "unknown")
