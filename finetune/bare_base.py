"""What the untuned base gives before an adapter is attached: its held-out loss, its previews, its prior pieces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from data_prep.heard import HEARD, n_degraded, pair_of
from finetune.batches import Clip, ClipSource, Degraded, Stream
from finetune.checkpoint import Position
from finetune.prior_pieces import PriorPieces, WithPriorPieces, load, play, save

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
    """What the base played for `prior_prompts`."""
    source: ClipSource
    """Clips and pieces alike."""
    kinds: Sequence[str] = ()
    """What the model follows besides captions, where the dataset has it."""
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
            prior_share=settings.prior_share,
            prior_pieces=self.pieces.clips,
            kinds=self.kinds,
            dropouts=self.dropouts,
            instead_share=settings.own_sound_share,
            degraded=Degraded(n_degraded(run.dataset.info), settings.heard.degraded_share),
        )


def ask_bare_base(lm: "LM", run: "Run", files: "BaseFiles", longest_frames: int, *, resumed: bool) -> BareBase:
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
    if run.settings.prior_prompts:
        if run.accelerator.is_main_process and not resumed:
            say, settings = run.progress.say, run.settings
            save(play(lm, files, settings.prior_prompts, longest_frames, settings.seed, say), run.folder.prior_pieces)
        run.accelerator.wait_for_everyone()
        pieces = load(run.folder.prior_pieces)
    made = run.dataset.info.get("conditions", {})
    kinds = [kind.name for kind in files.spec.conditions if kind.name in made]
    kinds += [HEARD] if pair_of(run.dataset.info) else []
    dropouts = {kind.name: kind.dropout for kind in files.spec.conditions if kind.dropout is not None}
    return BareBase(position, pieces, WithPriorPieces(run.dataset, pieces), kinds, dropouts)


def refuse_attached(lm: "LM") -> None:
    """Make sure that the model is the base alone.

    Raises:
        RuntimeError: it has an adapter.
    """
    attached = next((name for name, module in lm.named_modules() if hasattr(module, "lora_A")), None)
    if attached is not None:
        raise RuntimeError(f"the base must be asked before an adapter is attached, but {attached} has one")
