"""Conditions that an adapter adds to its base's own: read from the dataset, shaped by the settings."""

from typing import TYPE_CHECKING

from adapters.metadata import AddedInfo
from configs.train import TrainSettings
from data_prep.condition_sources.added import added_kinds
from data_prep.context_names import CONTEXT, pair_of
from data_prep.lm_spec import LMSpec

if TYPE_CHECKING:
    from data_prep.prepared import PreparedDataset


def added_infos(dataset: "PreparedDataset", settings: TrainSettings, spec: LMSpec) -> dict[str, AddedInfo]:
    """By kind, what the adapter adds to a base of this description: what the dataset holds and the base lacks."""
    made, wanted = dataset.info.get("conditions") or {}, settings.context
    return {
        name: AddedInfo(
            name=name,
            values="codes" if kind.values == "ids" else "floats",
            width=kind.width,
            size=wanted.size,
            lookahead_frames=round(wanted.lookahead_sec * spec.frame_rate),
            stride_frames=wanted.stride_frames if wanted.way == "prefix" else 0,
            pair=pair_of(dataset.info) or "" if name == CONTEXT else "",
        )
        for name, kind in added_kinds(spec).items()
        if made.get(name, {}).get("clips")
    }
