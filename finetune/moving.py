"""What a run moves its base to: the text encoder and the codec that the dataset was made with, a pattern by setting."""

from typing import TYPE_CHECKING

from configs.errors import UserError
from configs.train import TrainSettings
from data_prep.move import move_of_info
from data_prep.pattern_choice import PatternChoice

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles
    from data_prep.prepared import PreparedDataset


def moved_for_run(files: "BaseFiles", dataset: "PreparedDataset", settings: TrainSettings) -> "BaseFiles":
    """The base as this run learns and plays it.

    Raises:
        UserError: bases of this family cannot be moved so, or something else that was asked for needs the base as it
            is.
    """
    move = move_of_info(dataset.info)
    moved = files.moved(move)
    if settings.pattern is not None:
        span = span_frames(dataset, settings, moved) if settings.pattern == "coarse_first" else 0
        if settings.pattern.startswith(("coarse", "partial")) and moved.spec.n_codebooks == moved.spec.channels:
            raise UserError(
                f"The pattern {settings.pattern} needs coarse and fine codebooks; this codec has one per channel.",
                where="pattern",
                fix="Leave --pattern out: there is nothing to arrange.",
            )
        own = moved.spec
        choice = PatternChoice(settings.pattern, span)
        if not choice.is_own(own.lags, own.channels):
            moved = files.moved(type(move)(choice, move.text, move.codec))
    if moved.move and settings.prior_share > 0:
        raise UserError(
            f"prior_share holds on to what the base predicts, but the base has never known this "
            f"{' and '.join(moved.move.parts)}.",
            where=f"prior_share: {settings.prior_share:g}",
            fix="Leave --prior_share out.",
        )
    return moved


def span_frames(dataset: "PreparedDataset", settings: TrainSettings, files: "BaseFiles") -> int:
    """The longest clip of the dataset, held-out ones too, as it is cropped."""
    most = round(settings.max_clip_sec * files.spec.frame_rate)
    return min(most, max(row.n_frames for row in dataset.clips()))


def moved_facts(files: "BaseFiles") -> dict[str, str]:
    """What a person is told before the first step; nothing where the base stays as it is."""
    move, said = files.move, {}
    if move.pattern is not None:
        span = move.pattern.span_frames / files.spec.frame_rate
        more = f", the coarse codes of {span:.1f} s first" if span else ""
        said["pattern"] = f"{move.pattern.words}{more}; the base has learnt another"
    if move.text is not None:
        said["text encoder"] = f"{move.text.id}, {move.text.width} numbers per token; its projection learns whole"
    if move.codec is not None:
        shape = move.codec.shape
        said["codec"] = (
            f"{move.codec.id}, {shape.n_codebooks} codebooks of {shape.card} at {shape.frame_rate:.4g} Hz; "
            "tables and heads of its codes learn whole"
        )
    return said


def places_of(files: "BaseFiles") -> dict[str, str]:
    """Where the other models were, for versions.json: the run knows, the adapter tells nobody."""
    move = files.move
    places = {"text_encoder": move.text and move.text.id, "codec": move.codec and move.codec.id}
    return {name: place for name, place in places.items() if place}
