"""Does this dataset belong to this base? Tokens of another codec, or text states of another encoder, teach noise."""

from typing import TYPE_CHECKING

from configs.errors import UserError
from configs.train import TrainSettings

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles
    from data_prep.prepared import PreparedDataset


def with_base(settings: TrainSettings, dataset: "PreparedDataset") -> TrainSettings:
    """The settings with the dataset's own base where none was named."""
    if settings.base is not None:
        return settings
    own = dataset.info["base"]
    return settings.model_copy(deep=True, update={"base": own["id"], "revision": settings.revision or own["revision"]})


def check_fit(dataset: "PreparedDataset", files: "BaseFiles") -> None:
    """Compare what made the dataset with what the base expects.

    Raises:
        UserError: names every difference.
    """
    from data_prep.codec.registry import base_codec_fingerprint
    from data_prep.condition_sources.added import added_kinds
    from data_prep.condition_sources.registry import source_of, sources_for
    from data_prep.text_encoders.port import text_encoder_fingerprint

    codec, text = dataset.info["codec"], dataset.info["text_encoder"]
    spec = files.spec
    pairs = [
        ("codebooks", codec["n_codebooks"], spec.n_codebooks),
        ("codebook size", codec["card"], spec.card),
        ("audio channels", codec["channels"], spec.channels),
        ("codec weights", codec["fingerprint"], base_codec_fingerprint(files)),
        ("text width", text["width"], spec.text_width),
        ("text encoder weights", text["fingerprint"], text_encoder_fingerprint(files)),
    ]
    made = dataset.info.get("conditions", {})
    own = sources_for(spec)
    added = [(kind, source) for kind in added_kinds(spec).values() if (source := source_of(kind.name)) is not None]
    for kind, source in [*own, *added]:
        if kind.name in made:
            needed = source.depends_on(kind)
            known = {name: made[kind.name]["made_with"].get(name) for name in needed}
            pairs.append((f"how {kind.name} was made", known, needed))
    differ = [f"{name}: dataset {ours}, base {theirs}" for name, ours, theirs in pairs if ours != theirs]
    if differ:
        raise UserError(
            f"This dataset was not made for the base {files.id}:\n  " + "\n  ".join(differ),
            where=str(dataset.folder),
            fix=f"Leave --base out to use {dataset.info['base']['id']}, for which it was made, "
            f"or run `woodshed prep` with `--base {files.id}` into another folder.",
        )


def base_fingerprint(files: "BaseFiles") -> str:
    """The fingerprint of what an adapter changes: the language model."""
    from adapters.family.port import family_of
    from data_prep.fingerprint import fingerprint

    return fingerprint(family_of(files).stored(files))
