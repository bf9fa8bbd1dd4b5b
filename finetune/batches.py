"""Which clips a step learns from, and how they become tensors.

Every random choice about a clip (when it comes up, where it is cropped, which caption, whether without one) is a
function of (seed, epoch, clip): no generator, so that batch size, processes and a resume change none of them. Step n of
a run is known without having run the steps before.

This knows nothing of models and codebooks' lags; it pads with zeros and says how long each clip is.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int16
from torch import Tensor

from adapters.lm import Conditions
from data_prep.captions import without_trigger
from data_prep.prepared import PreparedDataset

PIECES_SHARE = 0.5
"""Of the clips that hold on to the base, how many are pieces that it played, where there are any."""


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


@runtime_checkable
class ClipSource(Protocol):
    """Where codes and text states come from: a prepared dataset, or one and more (`finetune.prior_pieces`)."""

    def codes(self, clip_id: str) -> Int16[np.ndarray, "K T"]:
        """Tokens of a clip."""
        ...

    def text_state(self, caption: str) -> Float[np.ndarray, "L D_text"]:
        """Text states of a caption."""
        ...


@dataclass
class Batch:
    """Clips side by side. What stands behind a clip's `n_frames` or outside `text_mask` means nothing."""

    clip_ids: list[str]
    codes: Int[Tensor, "B K T"]
    n_frames: Int[Tensor, " B"]
    text_states: Float[Tensor, "B L D_text"]
    text_mask: Bool[Tensor, "B L"]

    @property
    def conditions(self) -> Conditions:
        """What the LM follows while it hears these clips."""
        return Conditions(self.text_states, self.text_mask)

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        names = ("codes", "n_frames", "text_states", "text_mask")
        return Batch(self.clip_ids, *(getattr(self, name).to(device, non_blocking=True) for name in names))


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
    ) -> None:
        self.clips = sorted(clips, key=lambda clip: clip.id)
        self.seed = seed
        self.max_frames = max_frames
        self.condition_dropout = condition_dropout
        self.prior_share = prior_share
        self.prior_pieces = prior_pieces
        self._order = lru_cache(maxsize=4)(self._shuffled)

    def step(self, step: int, size: int) -> list[Draw]:
        """The draws of a step of `size` clips, all processes together. A step may reach into the next epoch."""
        places = range(step * size, (step + 1) * size)
        return [self.draw(self._order(place // len(self.clips))[place % len(self.clips)], place) for place in places]

    def draw(self, clip: Clip, place: int) -> Draw:
        """The clip as it comes up at this place of the series."""
        epoch = place // len(self.clips)
        dropped = self._chance("condition", epoch, clip) < self.condition_dropout
        bare = self._chance("prior", epoch, clip) < self.prior_share
        prior = bare or (dropped and self.prior_share > 0)
        if prior and self.prior_pieces and self._chance("piece or clip", epoch, clip) < PIECES_SHARE:
            clip = self.prior_pieces[int(self._chance("piece", epoch, clip) * len(self.prior_pieces))]
        n_frames = min(clip.n_frames, self.max_frames)
        start = int(self._chance("crop", epoch, clip) * (clip.n_frames - n_frames + 1))
        wordings = () if dropped else clip.bare if bare else clip.captions
        caption = wordings[int(self._chance("caption", epoch, clip) * len(wordings))] if wordings else None
        return Draw(clip.id, caption, start, n_frames, prior)

    def _shuffled(self, epoch: int) -> list[Clip]:
        return sorted(self.clips, key=lambda clip: self._chance("order", epoch, clip))

    def _chance(self, purpose: str, epoch: int, clip: Clip) -> float:
        return chance(purpose, self.seed, epoch, clip.id)


def held_out(clips: Iterable[Clip], *, max_clips: int, max_frames: int) -> list[Draw]:
    """The same validation clips each time, from their start, with their first caption. No chance but in the choice."""
    chosen = sorted(clips, key=lambda clip: chance("held out", clip.id))[:max_clips]
    return [Draw(clip.id, next(iter(clip.captions), None), 0, min(clip.n_frames, max_frames)) for clip in chosen]


def micro_batches(draws: Sequence[Draw], batch_size: int, rank: int, n_processes: int) -> list[list[Draw]]:
    """This process's share of a step, in micro-batches. Clips of like length go together, which saves padding.

    The gradient of a step does not depend on how its clips are arranged, so this is free to.
    """
    ordered = sorted(draws, key=lambda draw: (-draw.n_frames, draw.clip_id, draw.start_frame))
    batches = [ordered[first : first + batch_size] for first in range(0, len(ordered), batch_size)]
    return batches[rank::n_processes]


def collate(draws: Sequence[Draw], dataset: ClipSource, text_width: int) -> Batch:
    """Codes and text states of the draws, padded to the longest. A draw without caption has a text mask of zeros."""
    codes = [dataset.codes(d.clip_id)[:, d.start_frame : d.start_frame + d.n_frames] for d in draws]
    texts = [None if d.caption is None else dataset.text_state(d.caption) for d in draws]
    states, mask = _pad_texts(texts, text_width)
    n_frames = torch.tensor([d.n_frames for d in draws])
    return Batch([d.clip_id for d in draws], _pad_codes(codes), n_frames, states, mask)


def _pad_codes(codes: list[Any]) -> Int[Tensor, "B K T"]:
    padded = np.zeros((len(codes), codes[0].shape[0], max(clip.shape[1] for clip in codes)), dtype=np.int64)
    for row, clip in zip(padded, codes, strict=True):
        row[:, : clip.shape[1]] = clip
    return torch.from_numpy(padded)


def _pad_texts(texts: list[Any], width: int) -> tuple[Float[Tensor, "B L D_text"], Bool[Tensor, "B L"]]:
    longest = max((len(text) for text in texts if text is not None), default=1)
    states = np.zeros((len(texts), longest, width), dtype=np.float32)
    mask = np.zeros((len(texts), longest), dtype=bool)
    for row, text in enumerate(texts):
        if text is not None:
            states[row, : len(text)] = text
            mask[row, : len(text)] = True
    return torch.from_numpy(states), torch.from_numpy(mask)
