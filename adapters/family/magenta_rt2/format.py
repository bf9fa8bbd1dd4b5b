"""Magenta RealTime 2's files as the hub has them: one checkpoint of several sizes, its codec and its style model.

There is no config.json: sizes are read from the checkpoint's header, without torch. A base is the folder, or one
checkpoint in it where there are several. On the hub the plain id means the small model; the others are named behind it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.family.magenta_rt2.spec import FAMILY, HUB_ID, LICENSE, SIZES, STYLE, lm_spec
from configs.errors import UserError
from data_prep.condition_sources.style import StyleFrom
from data_prep.families import BaseFormat, HubPlace, Problem
from data_prep.lm_spec import LMSpec
from data_prep.magenta_rt2.files import HUB_PATTERNS, codec_source, find_files, is_magenta_folder, root_of

if TYPE_CHECKING:
    from data_prep.codec.source import CodecSource

SMALLEST = "mrt2_small"
KINDS = {
    "temporal.layers.*.self_attn": "self attention",
    "temporal.layers.*.cross_attn": "cross attention",
    "temporal.layers.*.ffn": "feed-forward",
    "depth.layers": "depth",
    "depth.adapter": "depth",
    "depth.heads": "heads",
    "source.style_proj": "style projection",
}
"""What a module is, by the parts that its name holds."""


class MagentaFormat(BaseFormat):
    """The official layout, whole or with one checkpoint."""

    family = FAMILY
    needed_files = ()
    licences = {HUB_ID: LICENSE}  # noqa: RUF012
    tags = ("magenta-realtime",)
    text_encoder = "style"
    folders_beside = ("resources",)

    def recognises(self, folder: Path, config: Mapping[str, Any]) -> bool:
        """By its folder of checkpoints, where there is no config.json."""
        return not config and is_magenta_folder(folder)

    def problems(self, folder: Path, config: Mapping[str, Any]) -> Iterator[Problem]:
        """Several checkpoints, or one that is damaged or of another kind."""
        try:
            _ = find_files(folder).spec
        except UserError as error:
            yield error.what, error.fix or ""

    def spec(self, folder: Path, config: Mapping[str, Any]) -> LMSpec:
        """From the shapes of the tensors; the style of sound is heard by the style model beside them."""
        spec = lm_spec(find_files(folder).spec)
        kinds = (replace(k, made_with=StyleFrom(folder)) if k.name == STYLE else k for k in spec.conditions)
        return replace(spec, conditions=tuple(kinds))

    def weight_files(self, folder: Path) -> list[Path]:
        """The one checkpoint that is meant."""
        return [find_files(folder).checkpoint]

    def module_kind(self, module: str) -> str | None:
        """In the words of the two stacks."""
        return next((kind for parts, kind in KINDS.items() if all(p in module for p in parts.split("*"))), None)

    def root(self, folder: Path) -> Path:
        """The folder above checkpoints/."""
        return root_of(folder)

    def on_hub(self, id: str) -> HubPlace | None:
        """`google/magenta-realtime-2` is the small model, `google/magenta-realtime-2/mrt2_base` the other."""
        size = SMALLEST if id == HUB_ID else id.removeprefix(f"{HUB_ID}/")
        if size not in SIZES:
            return None
        checkpoint = f"checkpoints/{size}.safetensors"
        return HubPlace(HUB_ID, (checkpoint, *HUB_PATTERNS), checkpoint)

    def codec_source(self, folder: Path) -> "CodecSource":
        """Decoder and quantiser beside the language model, the encoder in resources/."""
        return codec_source(find_files(folder))


FORMAT = MagentaFormat()
