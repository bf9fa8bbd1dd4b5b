"""Pieces that the untuned base plays before training, for prior preservation to hold on to (`finetune.prior`).

They are DreamBooth's class images (Ruiz et al. 2022, arXiv:2208.12242, section 3.3): music of other kinds, as the base
makes it, that should go on as it is. They are played once and kept in the run's folder, so that a resumed run hears the
same ones.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int, Num

from adapters.device_memory import DeviceTooSmallError, let_go
from configs.errors import UserError
from configs.sample import SampleSettings
from data_prep.prepared import PreparedDataset
from data_prep.safe_write import written_beside
from finetune.batches import Clip

if TYPE_CHECKING:
    from adapters.family.lm import LM
    from adapters.sampler import Sampler
    from data_prep.base_files import BaseFiles

AT_ONCE = 16
"""Pieces played side by side, as far as memory allows; with guidance they are twice as many rows."""


@dataclass(frozen=True)
class PriorPieces:
    """The pieces and the text states of their prompts."""

    prompts: list[str]
    codes: list[Int[np.ndarray, "K T"]]
    states: list[Num[np.ndarray, "_ D_text"]]

    @property
    def clips(self) -> list[Clip]:
        """As training draws them."""
        return [
            Clip(_name(number, prompt), codes.shape[1], (prompt,), (prompt,))
            for number, (prompt, codes) in enumerate(zip(self.prompts, self.codes, strict=True))
        ]


class WithPriorPieces:
    """A dataset and the base's pieces, read in the same way."""

    def __init__(self, dataset: PreparedDataset, pieces: PriorPieces) -> None:
        self._dataset = dataset
        self._codes = {clip.id: codes for clip, codes in zip(pieces.clips, pieces.codes, strict=True)}
        self._states = dict(zip(pieces.prompts, pieces.states, strict=True))

    def codes(self, clip_id: str) -> Int[np.ndarray, "K T"]:
        """Tokens of a clip or of a piece."""
        return self._codes[clip_id] if clip_id in self._codes else self._dataset.codes(clip_id)

    def text_state(self, caption: str) -> Num[np.ndarray, "L D_text"]:
        """Text states of a caption or of a piece's prompt."""
        return self._states[caption] if caption in self._states else self._dataset.text_state(caption)

    def condition(self, kind: str, clip_id: str) -> np.ndarray | None:
        """Values of a clip; a piece was played from its prompt alone."""
        return None if clip_id in self._codes else self._dataset.condition(kind, clip_id)


def play(
    lm: "LM", files: "BaseFiles", prompts: Sequence[str], n_frames: int, seed: int, say: Callable[[str], None]
) -> PriorPieces:
    """Every prompt once; nothing may be attached to the base yet.

    Raises:
        UserError: not even one piece fits into the memory of this device.
    """
    from adapters.sampler import Sampler
    from data_prep.text_encoders.port import load_text_encoder

    states = load_text_encoder(files, "cpu").encode(list(prompts))
    sampler = Sampler.around(lm, SampleSettings.model_validate({}))
    codes: list[Int[np.ndarray, "K T"]] = []
    for first in range(0, len(prompts), AT_ONCE):
        say(f"the base plays what should stay as it is: piece {first + 1} of {len(prompts)}")
        some = states[first : first + AT_ONCE]
        codes += _codes(sampler, some, range(seed + first, seed + first + len(some)), n_frames)
    let_go()
    return PriorPieces(list(prompts), codes, [state.numpy() for state in states])


def _codes(
    sampler: "Sampler", states: "Sequence[torch.Tensor]", seeds: Sequence[int], n_frames: int
) -> list[Int[np.ndarray, "K T"]]:
    """Side by side as far as memory allows: a piece is the same in any company."""
    try:
        return sampler.codes(states, seeds=seeds, n_frames=n_frames)
    except DeviceTooSmallError as error:
        fix = "Use shorter pieces (--prior_sec 5), a smaller base, or --prior_pieces 0."
        raise UserError(error.what, where=error.where, fix=fix) from error


def save(pieces: PriorPieces, path: Path) -> None:
    """One safetensors file, there whole or not at all.

    Raises:
        UserError: the disk is full or refuses.
    """
    from safetensors.numpy import save_file

    tensors = {f"codes.{number}": codes for number, codes in enumerate(pieces.codes)}
    tensors |= {f"states.{number}": states for number, states in enumerate(pieces.states)}
    with written_beside(path, flush=True) as part:
        save_file(tensors, part, metadata={"prompts": json.dumps(pieces.prompts)})


def load(path: Path) -> PriorPieces:
    """What `save` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            prompts = json.loads(file.metadata()["prompts"])
            codes, states = (
                [file.get_tensor(f"{kind}.{number}") for number in range(len(prompts))] for kind in ("codes", "states")
            )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            "The pieces that the base played to be held on to are missing or damaged: this run cannot go on exactly.",
            where=f"{path}: {error}",
            fix="Bring the file back, or start a new run in another folder.",
        ) from error
    return PriorPieces(prompts, codes, states)


def _name(number: int, prompt: str) -> str:
    """Of a piece, in the place of a clip's id; people meet it where a step went wrong."""
    return f"prior piece {number + 1} ({prompt})"
