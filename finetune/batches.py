"""Which clips a step learns from, and how they become tensors.

Every random choice about a clip (when it comes up, where it is cropped, which caption, whether without one) is a
function of (seed, epoch, clip): no generator, so that batch size, processes and a resume change none of them. Step n of
a run is known without having run the steps before.

This knows nothing of models and codebooks' lags; it pads with zeros and says how long each clip is.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, Num
from torch import Tensor

from adapters.conditions import Conditions, RowConditions, batch_conditions
from data_prep.captions import without_trigger
from data_prep.context_names import CONTEXT, degraded_name
from data_prep.lm_spec import ConditionKind, LMSpec
from data_prep.prepared import PreparedDataset

PIECES_SHARE = 0.65
"""Of the clips that hold on to the base, how many are pieces that it played, where there are any."""
INSTEAD_SHARE = 0.5
"""Of the clips that have a caption, how many follow what may take its place (`ConditionKind.instead_of`), unless said
(`own_sound_share`)."""


@dataclass(frozen=True)
class Clip:
    """What drawing needs to know of a clip."""

    id: str
    n_frames: int
    captions: tuple[str, ...]
    bare: tuple[str, ...] = ()
    """The captions without the trigger."""


@dataclass(frozen=True)
class Draw:
    """A clip as it comes up once: `caption` None means that it is trained without one.

    `prior`: the target is what the base predicts (`finetune.prior`).
    """

    clip_id: str
    caption: str | None
    start_frame: int
    n_frames: int
    prior: bool = False
    instead: bool = False
    """It follows what takes the place of its caption, where the model knows such a kind and the clip has it."""
    dropped: frozenset[str] = frozenset()
    """Kinds of condition besides text that it is trained without."""
    degraded: int = 0
    """Which degraded version of the context track comes with it; 0 is the track as it is."""
    hidden: "Hidden | None" = None
    """What of its past the model does not see (`finetune.history`)."""


@dataclass(frozen=True)
class Hidden:
    """Which share of the steps, on average, and the seed that says which."""

    share: float
    seed: int


@dataclass(frozen=True)
class Degraded:
    """How many degraded versions of the context track a dataset has, and what share of the clips gets one of them."""

    versions: int = 0
    share: float = 0.0


@runtime_checkable
class ClipSource(Protocol):
    """Where codes and text states come from: a prepared dataset, or one and more (`finetune.prior_pieces`)."""

    def codes(self, clip_id: str) -> Int[np.ndarray, "K T"]:
        """Tokens of a clip."""
        ...

    def text_state(self, caption: str) -> Num[np.ndarray, "L D_text"]:
        """Text states of a caption."""
        ...

    def condition(self, kind: str, clip_id: str) -> np.ndarray | None:
        """Values of another kind of condition, [n, width], for the whole clip; None where it has none."""
        ...


@dataclass
class Batch:
    """Clips side by side with what the LM follows. What stands behind a clip's `n_frames` means nothing."""

    clip_ids: list[str]
    codes: Int[Tensor, "B K T"]
    n_frames: Int[Tensor, " B"]
    conditions: Conditions

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        codes, n_frames = (t.to(device, non_blocking=True) for t in (self.codes, self.n_frames))
        return Batch(self.clip_ids, codes, n_frames, self.conditions.to(device))


def clips_of(dataset: PreparedDataset, split: str) -> list[Clip]:
    """The clips of a split."""
    return [
        Clip(row.id, row.n_frames, tuple(row.captions), _bare(row.captions, dataset.trigger))
        for row in dataset.clips(split)
    ]


def _bare(captions: Sequence[str], trigger: str) -> tuple[str, ...]:
    said = (without_trigger(caption, trigger) for caption in captions)
    return tuple(caption for caption in said if caption)


def chance(*of: int | str) -> float:
    """A number in [0, 1) that depends on nothing but the arguments; spread evenly over different ones."""
    digest = hashlib.blake2b("\0".join(map(str, of)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


class Stream:
    """The endless series of draws of a run: epoch after epoch, each in its own order, cut into steps.

    `prior_pieces`: pieces of the base that some of the `prior_share` are heard as, in the place of a clip.
    `trigger_alone` of the captions that say the trigger give way to it alone.
    `kinds`: what the model follows besides text. `condition_dropout` of the clips lose everything together, and where
    there are other kinds, as many lose the caption alone, and each kind alone, or the share of `dropouts` that is said
    for it. `instead_share` of the captioned clips follow what may take their caption's place. Of the clips that follow
    one of `added`, which the base cannot, `history_dropout` have a part of their past hidden.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        seed: int,
        max_frames: int,
        condition_dropout: float,
        prior_share: float = 0.0,
        prior_pieces: Sequence[Clip] = (),
        kinds: Sequence[str] = (),
        degraded: Degraded | None = None,
        trigger: str = "",
        trigger_alone: float = 0.0,
        dropouts: Mapping[str, float] | None = None,
        instead_share: float = INSTEAD_SHARE,
        added: Sequence[str] = (),
        history_dropout: float = 0.0,
    ) -> None:
        self.clips = sorted(clips, key=lambda clip: clip.id)
        self.seed = seed
        self.max_frames = max_frames
        self.condition_dropout = condition_dropout
        self.prior_share = prior_share
        self.prior_pieces = prior_pieces
        self.kinds = tuple(kinds)
        self.degraded = degraded or Degraded()
        self.trigger, self.trigger_alone = trigger, trigger_alone
        self.dropouts = dropouts or {}
        self.instead_share = instead_share
        self.added, self.history_dropout = frozenset(added), history_dropout
        self._order = lru_cache(maxsize=4)(self._shuffled)

    def step(self, step: int, size: int) -> list[Draw]:
        """The draws of a step of `size` clips, all processes together. A step may reach into the next epoch."""
        places = range(step * size, (step + 1) * size)
        return [self.draw(self._order(place // len(self.clips))[place % len(self.clips)], place) for place in places]

    def draw(self, clip: Clip, place: int) -> Draw:
        """The clip as it comes up at this place of the series."""
        epoch = place // len(self.clips)
        everything = self._chance("condition", epoch, clip) < self.condition_dropout
        dropped = everything or (bool(self.kinds) and self._alone("text", epoch, clip))
        without = {kind for kind in self.kinds if everything or self._alone(kind, epoch, clip)}
        bare = self._chance("prior", epoch, clip) < self.prior_share
        prior = bare or (dropped and self.prior_share > 0)
        if prior and self.prior_pieces and self._chance("piece or clip", epoch, clip) < PIECES_SHARE:
            clip = self.prior_pieces[int(self._chance("piece", epoch, clip) * len(self.prior_pieces))]
        n_frames = min(clip.n_frames, self.max_frames)
        start = int(self._chance("crop", epoch, clip) * (clip.n_frames - n_frames + 1))
        wordings = () if dropped else clip.bare if bare else clip.captions
        caption = wordings[int(self._chance("caption", epoch, clip) * len(wordings))] if wordings else None
        if caption is not None and not bare and self._chance("trigger alone", epoch, clip) < self.trigger_alone:
            caption = self.trigger or caption
        instead = caption is not None and not bare and self._chance("instead", epoch, clip) < self.instead_share
        version = self._degraded(epoch, clip)
        hidden = None if prior or not self.added - without else self._hidden(epoch, clip)
        return Draw(clip.id, caption, start, n_frames, prior, instead, frozenset(without), version, hidden)

    def _hidden(self, epoch: int, clip: Clip) -> Hidden | None:
        """Any share of the past, from nothing to all."""
        if self._chance("hidden", epoch, clip) >= self.history_dropout:
            return None
        return Hidden(self._chance("how much", epoch, clip), int(self._chance("which steps", epoch, clip) * 2**31))

    def _degraded(self, epoch: int, clip: Clip) -> int:
        """Which version of the context track comes up."""
        if not self.degraded.versions or self._chance("degraded", epoch, clip) >= self.degraded.share:
            return 0
        return 1 + int(self._chance("which version", epoch, clip) * self.degraded.versions)

    def _alone(self, kind: str, epoch: int, clip: Clip) -> bool:
        """Whether this kind of condition is dropped, whatever becomes of the others."""
        return self._chance(f"without {kind}", epoch, clip) < self.dropouts.get(kind, self.condition_dropout)

    def _shuffled(self, epoch: int) -> list[Clip]:
        return sorted(self.clips, key=lambda clip: self._chance("order", epoch, clip))

    def _chance(self, purpose: str, epoch: int, clip: Clip) -> float:
        return chance(purpose, self.seed, epoch, clip.id)


def held_out(clips: Iterable[Clip], *, max_clips: int, max_frames: int) -> list[Draw]:
    """The same validation clips each time, from their start, with their first caption. No chance but in the choice."""
    chosen = sorted(clips, key=lambda clip: chance("held out", clip.id))[:max_clips]
    return [Draw(clip.id, next(iter(clip.captions), None), 0, min(clip.n_frames, max_frames)) for clip in chosen]


def collate(draws: Sequence[Draw], dataset: ClipSource, spec: LMSpec) -> Batch:
    """Codes and conditions of the draws, padded to the longest. A draw without caption has the null text."""
    codes = [dataset.codes(d.clip_id)[:, d.start_frame : d.start_frame + d.n_frames] for d in draws]
    conditions = batch_conditions([conditions_of(draw, dataset, spec) for draw in draws], spec)
    n_frames = torch.tensor([d.n_frames for d in draws])
    return Batch([d.clip_id for d in draws], _pad_codes(codes), n_frames, conditions)


def conditions_of(draw: Draw, dataset: ClipSource, spec: LMSpec) -> RowConditions:
    """What one draw follows: what was not dropped, and of a kind per frame the stretch that belongs to its crop."""
    found: dict[str, Tensor] = {}
    for kind in spec.conditions:
        if kind.name in draw.dropped or (kind.instead_of is not None and not draw.instead):
            continue
        values = _values_of(draw, kind, dataset, spec.frame_rate)
        if values is not None:
            found[kind.name] = torch.from_numpy(np.array(values))
    return found


def _values_of(draw: Draw, kind: ConditionKind, dataset: ClipSource, frame_rate: float) -> np.ndarray | None:
    """[n, width], or None where the clip has none."""
    if kind.per == "caption":
        return None if draw.caption is None else dataset.text_state(draw.caption)
    if kind.per == "before":
        codes = dataset.codes(draw.clip_id)[:, max(0, draw.start_frame - (kind.n_entries or 1)) : draw.start_frame]
        return codes.T if codes.shape[1] else None
    values = dataset.condition(kind.name, draw.clip_id)
    if draw.degraded and kind.name == CONTEXT:
        values = dataset.condition(degraded_name(draw.degraded), draw.clip_id)
    if values is None or kind.per == "clip":
        return values
    return values[kind.stretch(draw.start_frame, draw.n_frames, frame_rate)]


def _pad_codes(codes: list[Any]) -> Int[Tensor, "B K T"]:
    padded = np.zeros((len(codes), codes[0].shape[0], max(clip.shape[1] for clip in codes)), dtype=np.int64)
    for row, clip in zip(padded, codes, strict=True):
        row[:, : clip.shape[1]] = clip
    return torch.from_numpy(padded)
