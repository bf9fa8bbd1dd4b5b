"""What a run moves its base to: the text encoder and the codec that the dataset was made with, a pattern by setting."""

from dataclasses import replace
from typing import TYPE_CHECKING

from configs.errors import UserError
from configs.train import TrainSettings
from data_prep.lm_spec import LMSpec
from data_prep.move import Move, move_of_info
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
    moved = files.moved(move_for_run(files.own_spec, dataset, settings))
    if moved.move and settings.prior_share:
        raise UserError(
            f"prior_share holds on to what the base predicts, but the base has never known this "
            f"{' and '.join(moved.move.parts)}.",
            where=f"prior_share: {settings.prior_share:g}",
            fix="Leave --prior_share out.",
        )
    return moved


def move_for_run(own: LMSpec, dataset: "PreparedDataset", settings: TrainSettings) -> Move:
    """What a base of this description is moved to; a pattern that is its own already is no move.

    Raises:
        UserError: the pattern makes no sense for the codec.
    """
    move = move_of_info(dataset.info)
    if settings.pattern is None:
        return move
    spec = move.applied(own)
    if settings.pattern.startswith(("coarse", "partial")) and spec.n_codebooks == spec.channels:
        raise UserError(
            f"The pattern {settings.pattern} needs coarse and fine codebooks; this codec has one per channel.",
            where="pattern",
            fix="Leave --pattern out: there is nothing to arrange.",
        )
    span = span_frames(dataset, settings, spec) if settings.pattern == "coarse_first" else 0
    choice = PatternChoice(settings.pattern, span)
    return move if choice.is_own(spec.lags, spec.channels) else replace(move, pattern=choice)


def span_frames(dataset: "PreparedDataset", settings: TrainSettings, spec: LMSpec) -> int:
    """The longest clip of the dataset, held-out ones too, as it is cropped."""
    most = round(settings.max_clip_sec * spec.frame_rate)
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
