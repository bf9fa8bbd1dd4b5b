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
from jaxtyping import Float, Int16

from configs.sample import SampleSettings
from configs.train import TrainSettings
from data_prep.prepared import PreparedDataset
from finetune.batches import Clip

if TYPE_CHECKING:
    from adapters.lm import MusicgenLM
    from data_prep.base_files import BaseFiles

AT_ONCE = 4


@dataclass(frozen=True)
class Played:
    """The pieces and the text states of their prompts."""

    prompts: list[str]
    codes: list[Int16[np.ndarray, "K T"]]
    states: list[Float[np.ndarray, "L D_text"]]

    @property
    def clips(self) -> list[Clip]:
        """As training draws them."""
        return [
            Clip(_name(number), codes.shape[1], (prompt,), (prompt,))
            for number, (prompt, codes) in enumerate(zip(self.prompts, self.codes, strict=True))
        ]


class WithPlayed:
    """A dataset and the base's pieces, read in the same way."""

    def __init__(self, dataset: PreparedDataset, played: Played) -> None:
        self._dataset = dataset
        self._codes = {_name(number): codes for number, codes in enumerate(played.codes)}
        self._states = dict(zip(played.prompts, played.states, strict=True))

    def codes(self, clip_id: str) -> Int16[np.ndarray, "K T"]:
        """Tokens of a clip or of a piece."""
        return self._codes[clip_id] if clip_id in self._codes else self._dataset.codes(clip_id)

    def text_state(self, caption: str) -> Float[np.ndarray, "L D_text"]:
        """Text states of a caption or of a piece's prompt."""
        return self._states[caption] if caption in self._states else self._dataset.text_state(caption)


def played_by(
    lm: "MusicgenLM", files: "BaseFiles", settings: TrainSettings, n_frames: int, path: Path, say: Callable[[str], None]
) -> Played:
    """What is to be held on to, pieces of `n_frames`: read where the run has it already, played and kept otherwise."""
    if not settings.prior_prompts:
        return Played([], [], [])
    if not path.exists():
        save(play(lm, files, settings.prior_prompts, n_frames, settings.seed, say), path)
    return load(path)


def play(
    lm: "MusicgenLM", files: "BaseFiles", prompts: Sequence[str], n_frames: int, seed: int, say: Callable[[str], None]
) -> Played:
    """Every prompt once; nothing may be attached to the base yet."""
    from adapters.sampler import Sampler
    from data_prep.text_encoder import TextEncoder

    states = TextEncoder.load(files, "cpu").encode(list(prompts))
    sampler = Sampler.around(lm, SampleSettings.model_validate({"seed": seed}), frame_rate=float(files.frame_rate))
    codes: list[Int16[np.ndarray, "K T"]] = []
    for first in range(0, len(prompts), AT_ONCE):
        say(f"the base plays what should stay as it is: piece {first + 1} of {len(prompts)}")
        seeds = range(seed + first, seed + min(first + AT_ONCE, len(prompts)))
        codes += sampler.codes(states[first : first + AT_ONCE], seeds=seeds, n_frames=n_frames)
    return Played(list(prompts), codes, [state.numpy() for state in states])


def save(played: Played, path: Path) -> None:
    """One safetensors file."""
    from safetensors.numpy import save_file

    tensors = {f"codes.{number}": codes for number, codes in enumerate(played.codes)}
    tensors |= {f"states.{number}": states for number, states in enumerate(played.states)}
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata={"prompts": json.dumps(played.prompts)})
    part.replace(path)


def load(path: Path) -> Played:
    """What `save` wrote."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        prompts = json.loads(file.metadata()["prompts"])
        codes, states = (
            [file.get_tensor(f"{kind}.{number}") for number in range(len(prompts))] for kind in ("codes", "states")
        )
    return Played(prompts, codes, states)


def _name(number: int) -> str:
    return f"played-{number:02}"
