"""What an adapter learns to hear beside its base's own conditions: read from the dataset, shaped by the settings."""

from typing import TYPE_CHECKING

from adapters.metadata import AddedInfo
from configs.train import TrainSettings
from data_prep.heard import HEARD, pair_of
from data_prep.lm_spec import LMSpec

if TYPE_CHECKING:
    from data_prep.prepared import PreparedDataset


def heard_infos(dataset: "PreparedDataset", settings: TrainSettings, spec: LMSpec) -> dict[str, AddedInfo]:
    """By kind, what the adapter adds to a base of this description; nothing for a dataset without pairs."""
    pair = pair_of(dataset.info)
    if pair is None:
        return {}
    wanted = settings.heard
    lookahead = round(wanted.lookahead_sec * spec.frame_rate)
    told = AddedInfo(
        name=HEARD,
        values="codes",
        width=spec.n_codebooks,
        size=wanted.size,
        lookahead_frames=lookahead,
        pair=pair,
    )
    return {HEARD: told}
