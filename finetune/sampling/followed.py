"""All that the pieces of one call follow besides words: a context track, a melody, beats, a recording's style."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from adapters.conditions import RowConditions
from adapters.play_along import ContextTrack, read_context
from adapters.sampler import Prompt, Sampler
from adapters.seams import Continuation
from configs.errors import UserError
from data_prep.base_files import BaseFiles
from data_prep.condition_sources.beat import BEAT
from data_prep.condition_sources.melody import MELODY
from data_prep.context_names import CONTEXT
from finetune.sampling.beats import PieceBeats, read_piece_beats
from finetune.sampling.line import added_by
from finetune.sampling.melody import PieceMelody, read_melody
from finetune.sampling.score import refuse_unfollowed_score
from finetune.sampling.style import PieceStyle, read_style, refuse_unfollowed_style

if TYPE_CHECKING:
    from finetune.sampling.line import Request, Words


@dataclass(frozen=True)
class Followed:
    """What there is of it; the same for every piece."""

    context: ContextTrack | None = None
    melody: PieceMelody | None = None
    beats: PieceBeats | None = None
    style: PieceStyle | None = None

    @property
    def conditions(self) -> RowConditions:
        """For the sampler."""
        found: dict[str, Tensor] = {}
        for one in (self.context, self.melody, self.beats):
            found |= {} if one is None else one.conditions
        return found

    def prompts(self, words: "Sequence[Words]") -> Sequence[Prompt]:
        """For the sampler: the words, with the style beside them where there is one."""
        return words if self.style is None else [self.style.beside(one) for one in words]

    def compare(self, waveform: Tensor, sample_rate_hz: int) -> str | None:
        """How well a piece follows its melody, where it has one."""
        return None if self.melody is None else self.melody.compare(waveform, sample_rate_hz)


def refuse_unfollowed(request: "Request", files: BaseFiles) -> None:
    """Before anything is loaded: what is given to be followed is followed by the base or by an adapter.

    Raises:
        UserError: something would change nothing, or an adapter needs a context track and there is none.
    """
    spec = files.spec
    added = {name: one.label for one in request.adapters for name in added_by(one.path)}
    if request.context is None and CONTEXT in added:
        raise UserError(f"{added[CONTEXT]} plays along with another track", fix="say with which: --with FILE")
    if request.context is not None and CONTEXT not in added:
        what = "this adapter follows" if request.adapters else "a base alone follows"
        fix = 'train one on pairs: woodshed prep SONGS DATA --pair "drums|rest"'
        raise UserError(f"{what} no context track: --with {request.context.name} would change nothing", fix=fix)
    if request.melody is not None and not (spec.has(MELODY) or MELODY in added):
        raise UserError(
            "nothing here follows a melody",
            where=f"--melody {request.melody}",
            fix="leave --melody out; use a base that does, e.g. facebook/musicgen-melody; "
            "or train an adapter that does: woodshed prep SONGS DATA --melody rest",
        )
    if request.beat is not None and not (spec.has(BEAT) or BEAT in added):
        raise UserError(
            f"nothing here follows beats: --beat {request.beat} would change nothing",
            fix="leave it out, or train an adapter that does: woodshed prep SONGS DATA --beat mix",
        )
    refuse_unfollowed_score(request, spec)
    refuse_unfollowed_style(request, files)


def read_context_track(request: "Request", sampler: Sampler) -> ContextTrack | None:
    """The recording to play along with; pieces are as long as it then."""
    if request.context is None:
        return None
    assert sampler.codec is not None
    asked = request.settings.duration_sec if "duration_sec" in request.settings.model_fields_set else None
    context = read_context(request.context, request.from_sec, asked, sampler.codec)
    exact = -(-context.audio.shape[1] // sampler.codec.hop_samples) / sampler.frame_rate
    sampler.settings = sampler.settings.model_copy(update={"duration_sec": exact})
    return context


def read_followed(
    request: "Request",
    sampler: Sampler,
    context: ContextTrack | None,
    before: Continuation | None,
    say: Callable[[str], None],
) -> Followed:
    """Melody, beats and style beside the context track; what was read is said.

    Raises:
        UserError: one of them cannot be read.
    """
    melody = beats = None
    if request.melody is not None:
        melody = read_melody(request, sampler, before)
        say(melody.said)
    if request.beat is None and request.bars is not None and sampler.engine.spec.has(BEAT):
        request = replace(request, beat=f"{request.bars[0]:g}")  # a loop has a tempo
    if request.beat is not None:
        beats = read_piece_beats(request, sampler, before)
        say(beats.said)
    style = read_style(request, sampler)
    if style is not None:
        say(style.said)
    return Followed(context, melody, beats, style)
