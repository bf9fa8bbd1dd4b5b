"""What the untuned base gives before an adapter is attached: its held-out loss, its previews, its prior pieces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from data_prep.context_names import n_degraded
from finetune.added_infos import added_infos
from finetune.batches import Clip, ClipSource, Degraded, Stream
from finetune.checkpoint import Position
from finetune.prior_pieces import PriorPieces, WithPriorPieces, load, play, save
from finetune.prior_prompts import prompts_for

if TYPE_CHECKING:
    from adapters.family.lm import LM
    from data_prep.base_files import BaseFiles
    from finetune.run import Run


@dataclass(frozen=True)
class BareBase:
    """All that a run needs of the base alone, and so of prior preservation."""

    position: Position
    """Where the run begins, with the base's held-out loss."""
    pieces: PriorPieces
    """What the base played to be held on to."""
    source: ClipSource
    """Clips and pieces alike."""
    kinds: Sequence[str] = ()
    """What the model follows besides captions, where the dataset has it."""
    added: Sequence[str] = ()
    """Those of them that the adapter brings."""
    dropouts: Mapping[str, float] = field(default_factory=dict)
    """Shares of clips without one of these, where a kind has one of its own."""

    def stream(self, clips: Sequence[Clip], run: "Run", max_frames: int) -> Stream:
        """Every step of the run."""
        settings = run.settings
        return Stream(
            clips,
            seed=settings.seed,
            max_frames=max_frames,
            condition_dropout=settings.condition_dropout,
            prior_share=settings.prior_share or 0.0,
            prior_pieces=self.pieces.clips,
            kinds=self.kinds,
            trigger=run.dataset.trigger,
            trigger_alone=settings.trigger_alone,
            dropouts=self.dropouts,
            instead_share=settings.own_sound_share,
            added=self.added,
            history_dropout=settings.context.history_dropout,
            degraded=Degraded(n_degraded(run.dataset.info), settings.context.degraded_share),
        )


def ask_bare_base(
    lm: "LM", run: "Run", files: "BaseFiles", clips: Sequence[Clip], longest_frames: int, *, resumed: bool
) -> BareBase:
    """Ask the base, or read what it gave when the run began.

    Raises:
        RuntimeError: something is attached to the base already: what it gives would not be its own.
        UserError: prior pieces do not fit into memory, or those of the run are missing.
    """
    refuse_attached(lm)
    position = Position()
    if not resumed:
        run.look_at_base(lm, position)
    pieces = PriorPieces([], [], [])
    settings = run.settings
    if settings.prior_share and settings.prior_pieces:
        if run.accelerator.is_main_process and not resumed:
            prompts = prompts_for(settings, [text for clip in clips for text in clip.bare], run.dataset.trigger)
            n_frames = min(longest_frames, max(1, round(settings.prior_sec * files.spec.frame_rate)))
            save(play(lm, files, prompts, n_frames, settings.seed, run.progress.say), run.folder.prior_pieces)
        run.accelerator.wait_for_everyone()
        pieces = load(run.folder.prior_pieces)
    made = run.dataset.info.get("conditions", {})
    kinds = [kind.name for kind in files.spec.conditions if kind.name in made]
    added = list(added_infos(run.dataset, run.settings, files.spec))
    dropouts = {kind.name: kind.dropout for kind in files.spec.conditions if kind.dropout is not None}
    return BareBase(position, pieces, WithPriorPieces(run.dataset, pieces), [*kinds, *added], added, dropouts)


def refuse_attached(lm: "LM") -> None:
    """Make sure that the model is the base alone.

    Raises:
        RuntimeError: it has an adapter.
    """
    attached = next((name for name, module in lm.named_modules() if hasattr(module, "lora_A")), None)
    if attached is not None:
        raise RuntimeError(f"the base must be asked before an adapter is attached, but {attached} has one")
